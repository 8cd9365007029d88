//! What runs beside connections: outboxes, groups and pools of threads.

mod groups;
mod offload;
mod outboxes;
