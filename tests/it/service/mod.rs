//! What runs beside connections: outboxes, groups and pools of threads.

mod deadlines;
mod groups;
mod offload;
mod outboxes;
