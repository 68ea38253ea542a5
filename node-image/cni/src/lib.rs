//! Pod routes between nodes.
