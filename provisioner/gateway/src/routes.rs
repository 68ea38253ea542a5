//! Which server name leads where.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where the connections of one server name go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Server name, lower case.
    pub server_name: String,
    /// API servers.
    pub replicas: Vec<SocketAddr>,
    /// Simultaneous connections allowed.
    pub max_connections: usize,
}

#[derive(Debug)]
pub(crate) struct Target {
    route: Route,
    slots: Arc<Semaphore>,
    next: AtomicUsize,
    /// Replicas that refused the last connection.
    down: Mutex<HashSet<SocketAddr>>,
}

impl Target {
    fn new(route: Route) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(route.max_connections)),
            route,
            next: AtomicUsize::new(0),
            down: Mutex::default(),
        }
    }

    /// A slot for one more connection, or `None` at the limit.
    pub(crate) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// Replicas in the order in which to try them: in turn, those that refused last.
    pub(crate) fn order(&self) -> Vec<SocketAddr> {
        let replicas = &self.route.replicas;
        let mut order = replicas.clone();
        if !order.is_empty() {
            order.rotate_left(self.next.fetch_add(1, Ordering::Relaxed) % replicas.len());
        }
        let down = self.down.lock().expect("no code panics while it holds this lock");
        order.sort_by_key(|replica| down.contains(replica));
        order
    }

    /// Remembers whether a replica accepted the connection.
    pub(crate) fn mark(&self, replica: SocketAddr, accepted: bool) {
        let mut down = self.down.lock().expect("no code panics while it holds this lock");
        if accepted {
            down.remove(&replica);
        } else {
            down.insert(replica);
        }
    }
}

/// The table of routes; cheap to clone, shared with the server.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    table: Arc<Mutex<HashMap<String, Arc<Target>>>>,
}

impl Routes {
    /// Replaces the table. Routes that stay the same keep their counts; connections that exist
    /// are not touched.
    pub fn set(&self, routes: Vec<Route>) {
        let mut table = self.table.lock().expect("no code panics while it holds this lock");
        let mut next = HashMap::new();
        for route in routes {
            let target = match table.remove(&route.server_name) {
                Some(target) if target.route == route => target,
                _ => Arc::new(Target::new(route)),
            };
            next.insert(target.route.server_name.clone(), target);
        }
        *table = next;
    }

    pub(crate) fn find(&self, server_name: &str) -> Option<Arc<Target>> {
        let table = self.table.lock().expect("no code panics while it holds this lock");
        table.get(server_name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_take_turns_and_one_that_refused_comes_last() {
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let routes = Routes::default();
        let route =
            Route { server_name: "a".into(), replicas: vec![addr(1), addr(2)], max_connections: 1 };
        routes.set(vec![route.clone()]);
        let target = routes.find("a").unwrap();
        assert_eq!(target.order(), [addr(1), addr(2)]);
        assert_eq!(target.order(), [addr(2), addr(1)]);
        target.mark(addr(1), false);
        assert_eq!(target.order(), [addr(2), addr(1)]);
        target.mark(addr(1), true);
        target.mark(addr(2), false);
        assert_eq!(target.order(), [addr(1), addr(2)]);

        let held = target.slot();
        routes.set(vec![route]);
        assert!(routes.find("a").unwrap().slot().is_none(), "an unchanged route keeps its count");
        drop(held);
        assert!(routes.find("a").unwrap().slot().is_some());
        routes.set(vec![]);
        assert!(routes.find("a").is_none());
    }
}
