//! Decision points other than `ingress`: what each is asked with, and what it
//! may answer.

pub(crate) mod connect;
