//! The Auth service.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use etcd_api::error::EtcdError;
use etcd_api::pb::authpb::permission::Type;
use etcd_api::pb::authpb::{Permission, UserAddOptions};
use etcd_api::pb::etcdserverpb::auth_server::Auth;
use etcd_api::pb::etcdserverpb::*;
use tonic::{Request, Response, Status};

use super::Answer;
use super::caller::caller;
use crate::access::{ROOT, token};
use crate::machine::waiters::Outcome;
use crate::node::Node;
use crate::pb;
use crate::pb::auth_change::Change;
use crate::pb::proposal::Op;
use crate::threads;

/// What bcrypt takes into account, bytes.
const LONGEST_PASSWORD: usize = 72;

/// The Auth service.
pub struct AuthService {
    /// The member.
    pub node: Arc<Node>,
}

impl AuthService {
    async fn change<T>(
        &self,
        r: Request<T>,
        change: impl FnOnce(T) -> Change,
    ) -> Result<Option<ResponseHeader>, Status> {
        let caller = caller(&self.node, &r).await?;
        // Hashing a password for somebody who may not set one would be work for nothing.
        self.node.machine.read().access.may_administer(caller.as_ref())?;
        let change = self.hash_password(change(r.into_inner())).await?;
        let op = Op::Auth(pb::AuthChange { change: Some(change) });
        self.node.propose_as(op, caller).await?;
        Ok(self.node.header_now())
    }

    /// Replaces the password of a change by its hash: the log holds no passwords.
    async fn hash_password(&self, mut change: Change) -> Result<Change, Status> {
        let (password, hashed) = match &mut change {
            Change::UserAdd(r) if !has_no_password(r.options) => {
                (&mut r.password, &mut r.hashed_password)
            }
            Change::UserAdd(r) => {
                r.password.clear();
                return Ok(change);
            }
            Change::UserChangePassword(r) => (&mut r.password, &mut r.hashed_password),
            _ => return Ok(change),
        };
        if password.len() > LONGEST_PASSWORD {
            return Err(Status::unknown("bcrypt: password length exceeds 72 bytes"));
        }
        let (given, cost) = (std::mem::take(password), self.node.config.bcrypt_cost);
        let hash = threads::block(move || bcrypt::hash(given, cost)).await?;
        *hashed = STANDARD.encode(hash.map_err(|e| Status::unknown(e.to_string()))?);
        Ok(change)
    }

    /// Checks a password; returns the revision at which it was right.
    async fn check_password(&self, r: &AuthenticateRequest) -> Result<u64, Status> {
        let (hash, revision) = {
            let state = self.node.machine.read();
            if !state.access.enabled {
                return Err(EtcdError::AuthNotEnabled.into());
            }
            let user = state.access.users.get(&r.name).ok_or(EtcdError::AuthFailed)?;
            if has_no_password(user.options) {
                return Err(EtcdError::NoPasswordUser.into());
            }
            (String::from_utf8_lossy(&user.password).into_owned(), state.access.revision)
        };
        let password = r.password.clone();
        match threads::block(move || bcrypt::verify(password, &hash)).await {
            Ok(Ok(true)) => Ok(revision),
            _ => {
                tracing::warn!(user = r.name, "a wrong password was given");
                Err(EtcdError::AuthFailed.into())
            }
        }
    }
}

fn has_no_password(options: Option<UserAddOptions>) -> bool {
    options.is_some_and(|options| options.no_password)
}

/// What the root role may do, though nothing of it is stored.
fn everything() -> Permission {
    Permission {
        perm_type: Type::Readwrite.into(),
        range_end: bytes::Bytes::from_static(&[0]),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(&self, r: Request<AuthEnableRequest>) -> Answer<AuthEnableResponse> {
        let header = self.change(r, Change::Enable).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(&self, r: Request<AuthDisableRequest>) -> Answer<AuthDisableResponse> {
        let header = self.change(r, Change::Disable).await?;
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn user_add(&self, r: Request<AuthUserAddRequest>) -> Answer<AuthUserAddResponse> {
        let header = self.change(r, Change::UserAdd).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_delete(
        &self,
        r: Request<AuthUserDeleteRequest>,
    ) -> Answer<AuthUserDeleteResponse> {
        let header = self.change(r, Change::UserDelete).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        r: Request<AuthUserChangePasswordRequest>,
    ) -> Answer<AuthUserChangePasswordResponse> {
        let header = self.change(r, Change::UserChangePassword).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        r: Request<AuthUserGrantRoleRequest>,
    ) -> Answer<AuthUserGrantRoleResponse> {
        let header = self.change(r, Change::UserGrantRole).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        r: Request<AuthUserRevokeRoleRequest>,
    ) -> Answer<AuthUserRevokeRoleResponse> {
        let header = self.change(r, Change::UserRevokeRole).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(&self, r: Request<AuthRoleAddRequest>) -> Answer<AuthRoleAddResponse> {
        let header = self.change(r, Change::RoleAdd).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_delete(
        &self,
        r: Request<AuthRoleDeleteRequest>,
    ) -> Answer<AuthRoleDeleteResponse> {
        let header = self.change(r, Change::RoleDelete).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        r: Request<AuthRoleGrantPermissionRequest>,
    ) -> Answer<AuthRoleGrantPermissionResponse> {
        let header = self.change(r, Change::RoleGrantPermission).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        r: Request<AuthRoleRevokePermissionRequest>,
    ) -> Answer<AuthRoleRevokePermissionResponse> {
        let header = self.change(r, Change::RoleRevokePermission).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }

    async fn auth_status(&self, _: Request<AuthStatusRequest>) -> Answer<AuthStatusResponse> {
        self.node.linearize().await?;
        let (enabled, auth_revision) = {
            let state = self.node.machine.read();
            (state.access.enabled, state.access.revision)
        };
        let header = self.node.header_now();
        Ok(Response::new(AuthStatusResponse { header, enabled, auth_revision }))
    }

    async fn authenticate(&self, r: Request<AuthenticateRequest>) -> Answer<AuthenticateResponse> {
        let r = r.into_inner();
        self.node.linearize().await?;
        loop {
            let checked = self.check_password(&r).await?;
            if let Some(jwt) = &self.node.config.jwt {
                let token = jwt.sign(r.name, checked);
                return Ok(Response::new(AuthenticateResponse {
                    header: self.node.header_now(),
                    token: token.map_err(|e| Status::unknown(e.to_string()))?,
                }));
            }
            let token_prefix = token::prefix();
            let login = pb::Login { user: r.name.clone(), token_prefix: token_prefix.clone() };
            match self.node.propose(Op::Login(login)).await? {
                // The password may have been changed meanwhile.
                Outcome::LoggedIn { auth_revision, .. } if auth_revision != checked => {}
                Outcome::LoggedIn { index, .. } => {
                    return Ok(Response::new(AuthenticateResponse {
                        header: self.node.header_now(),
                        token: token::name(&token_prefix, index),
                    }));
                }
                other => return Err(Status::internal(format!("unexpected outcome {other:?}"))),
            }
        }
    }

    async fn user_get(&self, r: Request<AuthUserGetRequest>) -> Answer<AuthUserGetResponse> {
        let caller = caller(&self.node, &r).await?;
        self.node.linearize().await?;
        let name = &r.get_ref().name;
        let roles = {
            let access = &self.node.machine.read().access;
            if caller.as_ref().is_none_or(|caller| caller.user != *name) {
                access.may_administer(caller.as_ref())?;
            }
            access.users.get(name).ok_or(EtcdError::UserNotFound)?.roles.clone()
        };
        Ok(Response::new(AuthUserGetResponse { header: self.node.header_now(), roles }))
    }

    async fn user_list(&self, r: Request<AuthUserListRequest>) -> Answer<AuthUserListResponse> {
        let caller = caller(&self.node, &r).await?;
        self.node.linearize().await?;
        let users = {
            let access = &self.node.machine.read().access;
            access.may_administer(caller.as_ref())?;
            access.users.keys().cloned().collect()
        };
        Ok(Response::new(AuthUserListResponse { header: self.node.header_now(), users }))
    }

    async fn role_get(&self, r: Request<AuthRoleGetRequest>) -> Answer<AuthRoleGetResponse> {
        let caller = caller(&self.node, &r).await?;
        self.node.linearize().await?;
        let name = &r.get_ref().role;
        let perm = {
            let access = &self.node.machine.read().access;
            let user = caller.as_ref().and_then(|caller| access.users.get(&caller.user));
            if !user.is_some_and(|user| user.roles.contains(name)) {
                access.may_administer(caller.as_ref())?;
            }
            let role = access.roles.get(name).ok_or(EtcdError::RoleNotFound)?;
            if name == ROOT { vec![everything()] } else { role.key_permission.clone() }
        };
        Ok(Response::new(AuthRoleGetResponse { header: self.node.header_now(), perm }))
    }

    async fn role_list(&self, r: Request<AuthRoleListRequest>) -> Answer<AuthRoleListResponse> {
        let caller = caller(&self.node, &r).await?;
        self.node.linearize().await?;
        let roles = {
            let access = &self.node.machine.read().access;
            access.may_administer(caller.as_ref())?;
            access.roles.keys().cloned().collect()
        };
        Ok(Response::new(AuthRoleListResponse { header: self.node.header_now(), roles }))
    }
}
