//! What is, what should be, and the steps between: one generic comparison for peers, routes and rules.
