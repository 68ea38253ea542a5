//! The Auth service. Authentication by user and password is not implemented: it is off, says so,
//! and cannot be switched on. Access is by client certificate.

use std::sync::Arc;

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::auth_server::Auth;
use etcd_api::pb::etcdserverpb::*;
use tonic::{Request, Response, Status};

use super::Answer;
use crate::node::Node;

/// The Auth service.
pub struct AuthService {
    /// The member.
    pub node: Arc<Node>,
}

fn unimplemented<T>() -> Answer<T> {
    Err(Status::unimplemented(
        "etcdserver: users and roles are not implemented; access is by client certificate",
    ))
}

macro_rules! not_implemented {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl Auth for AuthService {
            async fn auth_status(&self, _: Request<AuthStatusRequest>) -> Answer<AuthStatusResponse> {
                Ok(Response::new(AuthStatusResponse {
                    header: self.node.header_now(),
                    enabled: false,
                    auth_revision: 1,
                }))
            }

            async fn authenticate(
                &self,
                _: Request<AuthenticateRequest>,
            ) -> Answer<AuthenticateResponse> {
                Err(EtcdError::AuthNotEnabled.into())
            }

            $(async fn $name(&self, _: Request<$request>) -> Answer<$response> {
                unimplemented()
            })*
        }
    };
}

not_implemented! {
    auth_enable(AuthEnableRequest) -> AuthEnableResponse;
    auth_disable(AuthDisableRequest) -> AuthDisableResponse;
    user_add(AuthUserAddRequest) -> AuthUserAddResponse;
    user_get(AuthUserGetRequest) -> AuthUserGetResponse;
    user_list(AuthUserListRequest) -> AuthUserListResponse;
    user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
    user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
    user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
    user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
    role_add(AuthRoleAddRequest) -> AuthRoleAddResponse;
    role_get(AuthRoleGetRequest) -> AuthRoleGetResponse;
    role_list(AuthRoleListRequest) -> AuthRoleListResponse;
    role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
    role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
    role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
}
