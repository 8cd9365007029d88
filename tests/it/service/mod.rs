//! What runs beside connections: outboxes and groups, passed sockets, and what a service manager hears.

mod activation;
mod groups;
mod notify;
mod outboxes;
