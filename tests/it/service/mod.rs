//! What runs beside connections: outboxes, groups and pools of threads, passed sockets, and what a
//! service manager hears.

mod activation;
mod deadlines;
mod delivery;
mod groups;
mod notify;
mod offload;
mod outboxes;
