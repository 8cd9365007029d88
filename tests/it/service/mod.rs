//! What runs beside connections: outboxes and groups.

mod groups;
mod outboxes;
