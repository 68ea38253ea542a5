//! Certificate authorities per cluster and for the region.
