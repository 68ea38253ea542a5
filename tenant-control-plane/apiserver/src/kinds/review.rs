//! `authentication.k8s.io` and `authorization.k8s.io`: questions, never stored.

use super::row::{Review, Rows, cluster, namespaced};

pub(super) fn rows() -> Rows {
    Rows::of(
        "authentication.k8s.io",
        "v1",
        vec![
            cluster("SelfSubjectReview", "selfsubjectreviews").review(Review::SelfSubject),
            cluster("TokenReview", "tokenreviews").review(Review::Token),
        ],
    )
    .and(Rows::of(
        "authorization.k8s.io",
        "v1",
        vec![
            namespaced("LocalSubjectAccessReview", "localsubjectaccessreviews")
                .review(Review::LocalSubjectAccess),
            cluster("SelfSubjectAccessReview", "selfsubjectaccessreviews")
                .review(Review::SelfSubjectAccess),
            cluster("SelfSubjectRulesReview", "selfsubjectrulesreviews")
                .review(Review::SelfSubjectRules),
            cluster("SubjectAccessReview", "subjectaccessreviews").review(Review::SubjectAccess),
        ],
    ))
}
