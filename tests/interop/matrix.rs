//! The scenarios that run against each OP: one line for each scenario.

/// Defines a test for each OP of a line, called `matrix::SCENARIO::OP`.
macro_rules! matrix {
    ($($module:ident::$scenario:ident: $($op:ident)*;)*) => {$(
        mod $scenario {
            $(
                #[tokio::test]
                async fn $op() {
                    let op = crate::$op::OP;
                    crate::$module::$scenario(&op).await;
                }
            )*
        }
    )*};
}

matrix! {
    sign_in::a_user_signs_in: node keycloak zitadel glewlwyd idpyoidc;
    sign_in::a_user_who_declines_is_the_ops_answer: node keycloak glewlwyd idpyoidc;
    sign_in::tokens_are_bound_to_a_key: node keycloak glewlwyd;
    sign_in::id_tokens_by_every_algorithm_are_verified: node keycloak zitadel glewlwyd idpyoidc;
    sign_in::userinfo_is_read_plain_and_signed: node keycloak zitadel glewlwyd idpyoidc;
    sign_in::the_time_of_the_login_is_known_where_it_is_asked_for: node keycloak zitadel idpyoidc;
    sign_in::keys_are_replaced_while_users_are_on_their_way: keycloak zitadel glewlwyd idpyoidc;

    client_authentication::a_public_client: node keycloak zitadel idpyoidc;
    client_authentication::client_secret_basic: node keycloak zitadel glewlwyd idpyoidc;
    client_authentication::client_secret_post: node keycloak zitadel glewlwyd idpyoidc;
    client_authentication::client_secret_jwt: node keycloak glewlwyd idpyoidc;
    client_authentication::private_key_jwt: node keycloak zitadel glewlwyd idpyoidc;
    client_authentication::a_wrong_secret_is_refused: node keycloak zitadel glewlwyd idpyoidc;
    mutual_tls::a_certificate_of_the_authority_authenticates_the_client_and_binds_its_tokens: keycloak;

    pushed::requests_are_pushed_where_the_client_wants_it: node keycloak glewlwyd;
    pushed::a_user_returns_by_form_post: node keycloak idpyoidc;

    signing::requests_are_signed_in_the_url_and_pushed_with_every_algorithm: node keycloak glewlwyd;
    signing::requests_are_encrypted_for_a_key_of_the_op: node keycloak glewlwyd;
    signing::responses_come_as_jwts_in_every_mode: node keycloak glewlwyd;
    signing::responses_are_decrypted: node keycloak glewlwyd;
    signing::a_client_under_the_fapi_rules_signs_in: keycloak;

    encryption::id_tokens_and_userinfo_are_decrypted: node keycloak glewlwyd;

    tokens::tokens_are_refreshed: node keycloak zitadel glewlwyd idpyoidc;
    tokens::tokens_are_described: node keycloak zitadel glewlwyd idpyoidc;
    tokens::revoked_tokens_are_refused: node keycloak zitadel;

    grants::the_clients_own_tokens_come_at_once: keycloak zitadel;
    grants::a_token_is_exchanged: keycloak zitadel;
    grants::an_assertion_is_exchanged: keycloak zitadel;

    logout::a_user_logs_out_and_comes_back_with_the_state: node keycloak;
    logout::the_op_tells_that_a_session_has_ended: node keycloak;

    registration::a_client_registers_itself_and_manages_its_registration: keycloak;
}
