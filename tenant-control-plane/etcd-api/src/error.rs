//! etcd's errors as gRPC statuses. The texts and codes are the contract that clients match on
//! (`go.etcd.io/etcd/api/v3/v3rpc/rpctypes`).

use tonic::{Code, Status};

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        /// An error that etcd names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EtcdError {
            $(#[doc = $text] $(#[$doc])* $name,)*
        }

        impl EtcdError {
            /// All of them.
            pub const ALL: &'static [EtcdError] = &[$(EtcdError::$name,)*];

            /// The text on the wire.
            pub fn text(self) -> &'static str {
                match self { $(EtcdError::$name => $text,)* }
            }

            /// The gRPC code on the wire.
            pub fn code(self) -> Code {
                match self { $(EtcdError::$name => Code::$code,)* }
            }
        }
    };
}

errors! {
    EmptyKey = InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound = InvalidArgument, "etcdserver: key not found";
    ValueProvided = InvalidArgument, "etcdserver: value is provided";
    LeaseProvided = InvalidArgument, "etcdserver: lease is provided";
    TooManyOps = InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey = InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidSortOption = InvalidArgument, "etcdserver: invalid sort option";
    Compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRevision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NoSpace = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseNotFound = NotFound, "etcdserver: requested lease not found";
    LeaseExists = FailedPrecondition, "etcdserver: lease already exists";
    LeaseTtlTooLarge = OutOfRange, "etcdserver: too large lease TTL";
    MemberExists = FailedPrecondition, "etcdserver: member ID already exist";
    PeerUrlExists = FailedPrecondition, "etcdserver: Peer URLs already exists";
    NotEnoughStarted = FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members";
    MemberBadUrls = InvalidArgument, "etcdserver: given member URLs are invalid";
    MemberNotFound = NotFound, "etcdserver: member not found";
    MemberNotLearner = FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady = FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    RequestTooLarge = InvalidArgument, "etcdserver: request is too large";
    TooManyRequests = ResourceExhausted, "etcdserver: too many requests";
    AuthNotEnabled = FailedPrecondition, "etcdserver: authentication is not enabled";
    RootUserNotExist = FailedPrecondition, "etcdserver: root user does not exist";
    RootRoleNotExist = FailedPrecondition, "etcdserver: root user does not have root role";
    UserAlreadyExists = FailedPrecondition, "etcdserver: user name already exists";
    UserEmpty = InvalidArgument, "etcdserver: user name is empty";
    UserNotFound = FailedPrecondition, "etcdserver: user name not found";
    RoleAlreadyExists = FailedPrecondition, "etcdserver: role name already exists";
    RoleNotFound = FailedPrecondition, "etcdserver: role name not found";
    RoleEmpty = InvalidArgument, "etcdserver: role name is empty";
    AuthFailed = InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven = InvalidArgument, "etcdserver: permission not given";
    PermissionDenied = PermissionDenied, "etcdserver: permission denied";
    RoleNotGranted = FailedPrecondition, "etcdserver: role is not granted to the user";
    PermissionNotGranted = FailedPrecondition, "etcdserver: permission is not granted to the role";
    InvalidAuthToken = Unauthenticated, "etcdserver: invalid auth token";
    InvalidAuthMgmt = InvalidArgument, "etcdserver: invalid auth management";
    AuthOldRevision = InvalidArgument, "etcdserver: revision of auth store is old";
    NoPasswordUser = Unknown, "auth: authentication failed, password was given for no password user";
    NoLeader = Unavailable, "etcdserver: no leader";
    NotLeader = FailedPrecondition, "etcdserver: not leader";
    LeaderChanged = Unavailable, "etcdserver: leader changed";
    Stopped = Unavailable, "etcdserver: server stopped";
    Timeout = Unavailable, "etcdserver: request timed out";
    TimeoutLeaderFail = Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutWaitApplied = Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    Corrupt = DataLoss, "etcdserver: corrupt cluster";
    BadLeaderTransferee = FailedPrecondition, "etcdserver: bad leader transferee";
    NotSupportedForLearner = FailedPrecondition, "etcdserver: rpc not supported for learner";
}

impl std::fmt::Display for EtcdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for EtcdError {}

impl From<EtcdError> for Status {
    fn from(e: EtcdError) -> Self {
        Status::new(e.code(), e.text())
    }
}

impl EtcdError {
    /// Which of etcd's errors a status is, if it is one.
    pub fn of(status: &Status) -> Option<EtcdError> {
        Self::ALL
            .iter()
            .copied()
            .find(|e| e.code() == status.code() && e.text() == status.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_found_again_from_its_status() {
        for e in EtcdError::ALL {
            assert_eq!(EtcdError::of(&Status::from(*e)), Some(*e));
        }
        assert_eq!(EtcdError::of(&Status::unknown("else")), None);
    }
}
