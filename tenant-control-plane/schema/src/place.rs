//! Places in an object, as messages name them.

use std::fmt;

/// A place in an object. Made on the stack while walking down; written out only for a finding.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    part: Part<'a>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// A field of the object itself, or a dotted path to one.
    pub(crate) fn new(name: &'a str) -> Self {
        Self { parent: None, part: Part::Name(name) }
    }

    /// A field below a place, or of the object itself.
    pub(crate) fn under(parent: Option<&'a At<'a>>, name: &'a str) -> Self {
        Self { parent, part: Part::Name(name) }
    }

    /// A field below.
    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), part: Part::Name(name) }
    }

    /// An element of the list at this place.
    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), part: Part::Index(index) }
    }

    /// An entry of the map at this place.
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), part: Part::Key(key) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.part {
            Part::Name(name) if self.parent.is_some() => write!(f, ".{name}"),
            Part::Name(name) => f.write_str(name),
            Part::Index(index) => write!(f, "[{index}]"),
            Part::Key(key) => write!(f, "[{key}]"),
        }
    }
}
