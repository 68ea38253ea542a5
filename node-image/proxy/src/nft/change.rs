//! Commands in the order in which nftables accepts them: sets and chains exist before something
//! refers to them, and are deleted after the last reference is gone.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::TABLE;
use super::parts::Parts;

/// Elements per command.
const BATCH: usize = 500;

/// See the module documentation.
#[derive(Default)]
pub struct Change {
    unlink: BTreeMap<&'static str, Vec<String>>,
    flush: String,
    create: String,
    fill: String,
    link: BTreeMap<&'static str, Vec<String>>,
    delete_chains: String,
    delete_sets: String,
}

impl Change {
    /// Leads from what a port had to what it has now; shared parts are not looked at.
    pub fn own(&mut self, old: &Parts, new: &Parts) {
        for (place, value) in &old.elements {
            if new.elements.get(place) != Some(value) {
                self.remove_element(place.0, place.1.clone());
            }
        }
        for (place, value) in &new.elements {
            if old.elements.get(place) != Some(value) {
                self.add_element(place.0, format!("{} {value}", place.1));
            }
        }
        for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
            self.remove_chain(name);
        }
        for (name, rules) in &new.chains {
            match old.chains.get(name) {
                Some(before) if before == rules => {}
                Some(_) => {
                    let _ = writeln!(self.flush, "flush chain ip {TABLE} {name}");
                    self.fill_chain(name, rules);
                }
                None => self.add_chain(name, rules),
            }
        }
        for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
            let _ = writeln!(self.delete_sets, "delete set ip {TABLE} {name}");
        }
        for (name, seconds) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            let _ = writeln!(
                self.create,
                "add set ip {TABLE} {name} {{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}"
            );
        }
    }

    /// Adds an element (key, comment, value).
    pub fn add_element(&mut self, map: &'static str, element: String) {
        self.link.entry(map).or_default().push(element);
    }

    /// Removes the element with this key.
    pub fn remove_element(&mut self, map: &'static str, key: String) {
        self.unlink.entry(map).or_default().push(key);
    }

    /// Adds a chain.
    pub fn add_chain(&mut self, name: &str, rules: &[String]) {
        let _ = writeln!(self.create, "add chain ip {TABLE} {name}");
        self.fill_chain(name, rules);
    }

    /// Removes a chain.
    pub fn remove_chain(&mut self, name: &str) {
        let _ = writeln!(self.flush, "flush chain ip {TABLE} {name}");
        let _ = writeln!(self.delete_chains, "delete chain ip {TABLE} {name}");
    }

    fn fill_chain(&mut self, name: &str, rules: &[String]) {
        for rule in rules {
            let _ = writeln!(self.fill, "add rule ip {TABLE} {name} {rule}");
        }
    }

    /// All commands; empty when nothing changed.
    pub fn text(self) -> String {
        let unlink = commands("delete", &self.unlink);
        let link = commands("add", &self.link);
        let Self { flush, create, fill, delete_chains, delete_sets, .. } = self;
        [unlink, flush, create, fill, link, delete_chains, delete_sets].concat()
    }
}

fn commands(verb: &str, elements: &BTreeMap<&'static str, Vec<String>>) -> String {
    let mut text = String::new();
    for (map, elements) in elements {
        for batch in elements.chunks(BATCH) {
            let _ = writeln!(text, "{verb} element ip {TABLE} {map} {{ {} }}", batch.join(", "));
        }
    }
    text
}
