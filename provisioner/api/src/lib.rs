//! What the controller tells an agent, and what an agent reports.
