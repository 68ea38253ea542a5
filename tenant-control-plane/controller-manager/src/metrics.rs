//! Names of the metrics that the controllers record; rendered by [`component::metrics`].

/// Running controllers: 1 per name.
pub const RUNNING: &str = "running_managed_controllers";
