//! The control against real databases.
