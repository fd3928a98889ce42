//! Tests of a start through a child.
