//! The rules as text for `nft -f -`: the whole table, or only what changed.
//!
//! ```text
//!  prerouting, output ─► services ─┬─ vmap @service-ips       (address . protocol . port)
//!                                  └─ vmap @service-nodeports (protocol . port, local addresses)
//!                                           │ goto
//!              pick-tcp-<n>: dnat to … . numgen random mod <n> map @endpoints-tcp
//!              or, with session affinity, a chain of the service port and one of each endpoint
//!  postrouting ─► masquerade marked connections, and pods that reached themselves
//!  input, forward, output ─► reject: vmap @no-endpoints
//! ```
//!
//! A service port without session affinity has no chain and no set of its own, only elements of maps:
//! one per address and one per address and endpoint. All ports with as many endpoints share a `pick`
//! chain. The kernel checks every chain and every anonymous set on each change, so a table of
//! elements is what makes a full load linear and a change independent of the number of Services.

use std::collections::BTreeSet;

use crate::model::State;

mod change;
mod parts;
mod table;

pub use table::Table;

/// Name of our table, as upstream's.
pub const TABLE: &str = "kube-proxy";
/// Mark of connections whose source address is replaced (upstream's masquerade bit 14).
const MARK: &str = "0x4000";

/// The table for a state, and the text that replaces whatever stands in the kernel by it, in one
/// transaction.
pub fn full(state: State) -> (Table, String) {
    let mut table = Table::default();
    let keys: BTreeSet<_> = state.keys().map(|key| key.service()).collect();
    let change = table.change(&keys, state);
    // The first line makes the second one succeed on a table that does not exist yet.
    let start = format!("add table ip {TABLE}\ndelete table ip {TABLE}\n");
    (table, start + &base() + &change)
}

/// Table, hooks and empty maps.
fn base() -> String {
    let t = TABLE;
    // One per protocol: of `th dport`, which stands for all, nft 1.0.6 and later refuse the rules that
    // a later transaction adds.
    let of = |proto| {
        format!(
            "  map endpoints-{proto} {{ typeof ip daddr . {proto} dport . numgen random mod 2 \
             : ip daddr . {proto} dport; }}
  map nodeport-endpoints-{proto} {{ typeof {proto} dport . numgen random mod 2 \
             : ip daddr . {proto} dport; }}\n"
        )
    };
    let maps = ["tcp", "udp", "sctp"].map(of).concat();
    format!(
        "table ip {t} {{
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; }}
{maps}  map no-endpoints {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
  set hairpins {{ type ipv4_addr . ipv4_addr; }}
  chain mark-for-masquerade {{ meta mark set meta mark or {MARK}; }}
  chain reject-it {{ reject; }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @service-nodeports
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain output {{ type nat hook output priority -100; jump services; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    meta mark & {MARK} != 0 meta mark set meta mark xor {MARK} masquerade fully-random
    ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random
  }}
  chain no-endpoint-services {{
    ip daddr . meta l4proto . th dport vmap @no-endpoints
    fib daddr type local meta l4proto . th dport vmap @no-endpoint-nodeports
  }}
  chain filter-input {{ type filter hook input priority -110; ct state new jump no-endpoint-services; }}
  chain filter-forward {{ type filter hook forward priority -110; ct state new jump no-endpoint-services; }}
  chain filter-output {{ type filter hook output priority -110; ct state new jump no-endpoint-services; }}
}}
"
    )
}
