//! What runs on this node, as the container runtime tells it.

pub mod docker_config;
pub mod images;
pub mod labels;
pub mod logs;
pub mod observe;
pub mod watch;
