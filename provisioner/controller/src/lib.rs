//! Plans and executes.
