//! What the clients share: names with several addresses, odd input, and what they say when they fail.

mod inherited;
mod odd_input;
mod races;
mod told;
