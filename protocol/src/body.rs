//! The values that messages carry.
