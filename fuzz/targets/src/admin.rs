//! A line on the operator's socket.

use parlor_room::admin::{AdminRequest, AdminResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Verdict;

/// The bytes are a request or an answer. What is read is written as one line and read again as the same.
pub fn admin(data: &[u8]) -> Verdict {
    let request = reads_back::<AdminRequest>(data);
    let response = reads_back::<AdminResponse>(data);
    Verdict::accepted_if(request || response)
}

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(line: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(line) else { return false };
    let Ok(written) = serde_json::to_string(&read) else { panic!("{read:?} cannot be written") };
    assert!(!written.contains('\n'));
    assert_eq!(serde_json::from_str::<T>(&written).ok().as_ref(), Some(&read));
    true
}
