//! The host with real components: the committed `hello` and `probe`, and small ones made here.

#[cfg(test)]
mod failures;
#[cfg(test)]
mod hello;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod load;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod support;
#[cfg(test)]
mod wire;
