//! What kind of machine this node is.

/// Where the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// A virtual machine with a kernel of its own.
    VirtualMachine,
    /// Namespaces on the kernel of a host that this process must not change.
    Sandbox,
}
