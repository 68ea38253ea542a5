//! The planner: intent and observed in, actions out.
