//! The input document of a request that is told, not received.

use crate::input::{
    ConnectionFacts, ConnectionParameters, InputError, InputKeys, ReadSet, RequestFacts, check,
};
use crate::question::InputDocument;

/// The whole document that the policy would be asked with.
///
/// # Errors
///
/// A request that no policy is asked about, because the document could not show it.
pub fn request_document(
    connection: &ConnectionParameters,
    request: &RequestFacts,
) -> Result<InputDocument, InputError> {
    check(request)?;
    let connection = ConnectionFacts::new(connection.clone());
    let document = InputKeys::new().document(&ReadSet::everything(), &connection, request);
    Ok(InputDocument::of(document))
}
