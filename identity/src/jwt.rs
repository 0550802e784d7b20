//! JWT-SVIDs (JWT-SVID.md): the keys that sign them, the bundles that verify them.

mod authority;
mod bundle;
mod cache;
mod validate;

pub use authority::{JwtAuthority, JwtError, JwtSvid};
pub use bundle::{JwtBundle, JwtBundleError};
pub use cache::JwtCache;
pub use validate::{InvalidJwtSvid, ValidJwtSvid, validate};
