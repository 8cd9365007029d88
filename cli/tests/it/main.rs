//! Tests of the built command, laid out like its `src`. Besides, there are `project`, what concerns no room
//! alone, and `support`, what the tests are made with.

mod bench;
mod completions;
mod connect;
mod ctl;
mod fetch;
mod monitoring;
mod outbound;
mod project;
mod protocols;
mod restart;
mod serve;
mod serving;
mod settings;
mod signals;
mod support;
mod top;
