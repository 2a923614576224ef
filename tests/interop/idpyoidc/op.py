"""An OpenID Provider made of idpyoidc's endpoints, for the tests beside it: HTTPS on a loopback port.

Its settings are one line of JSON on standard input: `tls` has a certificate and its key as PEM. It prints one line of
JSON with its `issuer`. After that each line on standard input replaces its signing keys, which it confirms with a line.
It ends when standard input ends.

Every user is user-1 and consents, except one whose `login_hint` is `declines`.
"""

import json
import os
import ssl
import sys
import tempfile
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from cryptojwt.key_jar import init_key_jar
from idpyoidc.message.oauth2 import ResponseMessage
from idpyoidc.server import Server
from idpyoidc.server.configure import OPConfiguration
from idpyoidc.server.exception import ClientAuthenticationError, InvalidClient, UnAuthorizedClient, UnknownClient

SIGNING = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512"]
KEY_MANAGEMENT = ["RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"]
CONTENT_ENCRYPTION = ["A128CBC-HS256", "A256CBC-HS512", "A128GCM", "A256GCM"]
AUTHENTICATION = ["client_secret_post", "client_secret_basic", "client_secret_jwt", "private_key_jwt"]
KEYS = [
    {"type": "RSA", "use": ["sig"]},
    {"type": "EC", "crv": "P-256", "use": ["sig"]},
    {"type": "EC", "crv": "P-384", "use": ["sig"]},
    {"type": "EC", "crv": "P-521", "use": ["sig"]},
    {"type": "RSA", "use": ["enc"]},
    {"type": "EC", "crv": "P-256", "use": ["enc"]},
]
SYMMETRIC = {"key_defs": [{"type": "OCT", "use": ["enc"], "kid": "enc"}, {"type": "OCT", "use": ["sig"], "kid": "sig"}]}
JSON = [("Content-Type", "application/json")]


def endpoint(path, name, **settings):
    return {"path": path, "class": f"idpyoidc.server.{name}", "kwargs": settings}


def endpoints():
    clients = {"client_authn_method": AUTHENTICATION}
    # A public client authenticates with its identifier alone.
    tokens = {"client_authn_method": [*AUTHENTICATION, "public"]}
    return {
        "provider_info": endpoint(
            ".well-known/openid-configuration", "oidc.provider_config.ProviderConfiguration", client_authn_method=None
        ),
        "registration": endpoint("registration", "oidc.registration.Registration", client_authn_method=None),
        "registration_read": endpoint(
            "registration_read", "oidc.read_registration.RegistrationRead", client_authn_method=["bearer_header"]
        ),
        "introspection": endpoint(
            "introspection", "oauth2.introspection.Introspection", enforce_audience_restriction=False, **clients
        ),
        "token_revocation": endpoint("revocation", "oauth2.token_revocation.TokenRevocation", **tokens),
        "pushed_authorization": endpoint("par", "oauth2.pushed_authorization.PushedAuthorization", **clients),
        "authorization": endpoint(
            "authorization",
            "oidc.authorization.Authorization",
            client_authn_method=None,
            claims_parameter_supported=True,
            request_parameter_supported=True,
            response_types_supported=["code"],
            response_modes_supported=["query", "fragment", "form_post"],
        ),
        "token": endpoint("token", "oidc.token.Token", **tokens),
        "userinfo": endpoint("userinfo", "oidc.userinfo.UserInfo", claim_types_supported=["normal"]),
    }


def preferences():
    return {
        "subject_types_supported": ["public"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "id_token_signing_alg_values_supported": SIGNING,
        "userinfo_signing_alg_values_supported": SIGNING,
        "request_object_signing_alg_values_supported": SIGNING,
        "token_endpoint_auth_methods_supported": [*AUTHENTICATION, "none"],
        "token_endpoint_auth_signing_alg_values_supported": SIGNING,
        "userinfo_encryption_alg_values_supported": KEY_MANAGEMENT,
        "userinfo_encryption_enc_values_supported": CONTENT_ENCRYPTION,
        "request_object_encryption_alg_values_supported": KEY_MANAGEMENT,
        "request_object_encryption_enc_values_supported": CONTENT_ENCRYPTION,
    }


def token_handlers():
    jwt = "idpyoidc.server.token.jwt_token.JWTToken"
    return {
        "key_conf": SYMMETRIC,
        "code": {"lifetime": 600, "kwargs": {"crypt_conf": {"kwargs": {"keys": SYMMETRIC}}}},
        "token": {"class": jwt, "kwargs": {"lifetime": 3600}},
        "refresh": {"class": jwt, "kwargs": {"lifetime": 86400}},
        "id_token": {"class": "idpyoidc.server.token.id_token.IDToken", "kwargs": {}},
    }


def grants():
    minting = ["access_token", "refresh_token", "id_token"]
    return {
        "usage_rules": {
            "authorization_code": {"supports_minting": minting, "max_usage": 1},
            "access_token": {},
            "refresh_token": {"supports_minting": minting},
        },
        "expires_in": 43200,
    }


def configuration(issuer, users):
    return {
        "issuer": issuer,
        "base_url": issuer,
        "key_conf": {"key_defs": KEYS, "uri_path": "jwks"},
        "httpc_params": {"verify": False},
        "preference": preferences(),
        "authz": {"class": "idpyoidc.server.authz.AuthzHandling", "kwargs": {"grant_config": grants()}},
        "authentication": {
            "anon": {
                "acr": "urn:example:loa1",
                "class": "idpyoidc.server.user_authn.user.NoAuthn",
                "kwargs": {"user": "user-1"},
            }
        },
        "cookie_handler": {
            "class": "idpyoidc.server.cookie_handler.CookieHandler",
            "kwargs": {
                "keys": SYMMETRIC,
                "name": {"session": "op", "register": "rp", "session_management": "sman"},
            },
        },
        "endpoint": endpoints(),
        "userinfo": {"class": "idpyoidc.server.user_info.UserInfo", "kwargs": {"db_file": users}},
        "token_handler_args": token_handlers(),
        "scopes_to_claims": {
            "openid": ["sub"],
            "profile": ["name"],
            "email": ["email", "email_verified"],
            "offline_access": [],
        },
        "add_on": {
            "pkce": {
                "function": "idpyoidc.server.oauth2.add_on.pkce.add_support",
                "kwargs": {"essential": True, "code_challenge_method": "S256"},
            }
        },
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "idpyoidc"

    def do_GET(self):
        self.serve(dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True)))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        self.serve(body if is_json else dict(parse_qsl(body, keep_blank_values=True)))

    do_PUT = do_POST
    do_DELETE = do_GET

    def serve(self, request):
        """Answers a request at the endpoint with its path, one at a time, because the library's state has no locks."""
        path = urlsplit(self.path).path.lstrip("/")
        with self.server.turn:
            if path == "jwks":
                return self.answer(200, json.dumps(self.server.op.get_context().keyjar.export_jwks()), JSON)
            found = [one for one in self.server.op.endpoint.values() if urlsplit(one.full_path).path.lstrip("/") == path]
            if not found:
                return self.answer(404, "not found", [])
            try:
                return self.serve_at(found[0], request)
            except (ClientAuthenticationError, InvalidClient, UnAuthorizedClient, UnknownClient, KeyError) as error:
                traceback.print_exc()
                return self.refuse(401, "invalid_client", error)
            except Exception as error:
                traceback.print_exc()
                return self.refuse(400, "invalid_request", error)

    def serve_at(self, endpoint, request):
        http_info = {
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "method": self.command,
            "url": self.server.op.get_context().issuer + self.path,
            "cookie": [],
        }
        request = endpoint.parse_request(request, http_info=http_info)
        if is_error(request):
            return self.refuse_with(endpoint, request)
        if endpoint.name == "authorization" and request.get("login_hint") == "declines":
            outcome = declined(endpoint, request)
        else:
            outcome = endpoint.process_request(request, http_info=http_info, issue_refresh=True)
        if is_error(outcome):
            return self.refuse_with(endpoint, outcome)
        if "http_response" in outcome:
            return self.answer(201, json.dumps(outcome["http_response"]), JSON)
        info = endpoint.do_response(request=request, **outcome)
        if info.get("response_placement", endpoint.response_placement) == "url":
            return self.answer(302, "", [("Location", info["response"])])
        return self.answer(outcome.get("response_code", 200), info["response"], info["http_headers"])

    def refuse_with(self, endpoint, problem):
        print(f"{endpoint.name}: {problem.to_json()}", file=sys.stderr)
        if endpoint.name == "userinfo":
            challenge = f'Bearer error="{problem["error"]}"'
            return self.answer(401, problem.to_json(), [*JSON, ("WWW-Authenticate", challenge)])
        return self.answer(400, problem.to_json(), JSON)

    def refuse(self, status, error, description):
        problem = ResponseMessage(error=error, error_description=str(description) or repr(description))
        headers = [*JSON, ("WWW-Authenticate", "Basic")] if status == 401 else JSON
        self.answer(status, problem.to_json(), headers)

    def answer(self, status, body, headers):
        body = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        print(format % arguments, file=sys.stderr)


def is_error(message):
    return isinstance(message, ResponseMessage) and "error" in message


def declined(endpoint, request):
    """The library's response if a user is not admitted."""
    problem = endpoint.authentication_error_response(request, "access_denied", "the user declined")
    outcome = {"response_args": problem, "return_uri": request["redirect_uri"]}
    if "response_mode" in request:
        outcome = endpoint.response_mode(request, **outcome)
    return outcome


def listen(folder, settings):
    """A listening server that has no provider yet, because the provider must know the port."""
    files = {}
    for name in ("certificate", "key"):
        files[name] = os.path.join(folder, name)
        with open(files[name], "w") as file:
            file.write(settings["tls"][name])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files["certificate"], files["key"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.turn = threading.Lock()
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


def provider(folder, port):
    users = os.path.join(folder, "users.json")
    with open(users, "w") as file:
        json.dump({"user-1": {"name": "Jane Doe", "email": "jane@example.com", "email_verified": True}}, file)
    settings = configuration(f"https://localhost:{port}", users)
    settings = OPConfiguration(conf=settings, base_path=folder, domain="localhost", port=port)
    return Server(settings, cwd=folder)


def replace_keys(op):
    """Adds new keys, which sign everything from now on. The old ones stay for earlier signatures, such as codes."""
    context = op.get_context()
    fresh = init_key_jar(key_defs=KEYS, issuer_id="")[""].get_bundles()
    for owner in ("", context.issuer):
        if owner in context.keyjar:
            keys = context.keyjar[owner]
            # It signs with the first matching key.
            keys.set([*fresh, *keys.get_bundles()])
            context.keyjar[owner] = keys


def main():
    settings = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory(prefix="idpyoidc-") as folder:
        server = listen(folder, settings)
        server.op = provider(folder, server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(json.dumps({"issuer": server.op.get_context().issuer}), flush=True)
        for _ in sys.stdin:
            with server.turn:
                replace_keys(server.op)
            print(json.dumps({}), flush=True)


main()
