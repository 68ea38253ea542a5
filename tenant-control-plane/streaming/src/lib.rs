//! Connection upgrades: SPDY, WebSocket, egress.
