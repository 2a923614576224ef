// An OpenID Provider of other authors, for the tests beside it: the example server of zitadel/oidc, with keys and a
// client that a test chooses. It reads its settings as one line of JSON on standard input, prints its address as one
// line of JSON on standard output, replaces its key with every further line, and ends when its input ends.
package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

type settings struct {
	TLS struct {
		Certificate string `json:"certificate"`
		Key         string `json:"key"`
	} `json:"tls"`
	Client client `json:"client"`
}

// The registration of a client (RFC 7591).
type client struct {
	ID        string              `json:"client_id"`
	Secret    string              `json:"client_secret"`
	Redirects []string            `json:"redirect_uris"`
	Method    oidc.AuthMethod     `json:"token_endpoint_auth_method"`
	Responses []oidc.ResponseType `json:"response_types"`
	Grants    []oidc.GrantType    `json:"grant_types"`
	Keys      jose.JSONWebKeySet  `json:"jwks"`
	Algorithm string              `json:"id_token_signed_response_alg"`
}

func (c *client) GetID() string                        { return c.ID }
func (c *client) RedirectURIs() []string               { return c.Redirects }
func (c *client) PostLogoutRedirectURIs() []string     { return nil }
func (c *client) ApplicationType() op.ApplicationType  { return op.ApplicationTypeWeb }
func (c *client) AuthMethod() oidc.AuthMethod          { return c.Method }
func (c *client) ResponseTypes() []oidc.ResponseType   { return c.Responses }
func (c *client) GrantTypes() []oidc.GrantType         { return c.Grants }
func (c *client) LoginURL(id string) string            { return "/login/username?authRequestID=" + id }
func (c *client) IDTokenLifetime() time.Duration       { return time.Hour }
func (c *client) DevMode() bool                        { return false }
func (c *client) IsScopeAllowed(string) bool           { return false }
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return false }
func (c *client) ClockSkew() time.Duration             { return 0 }
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c *client) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeBearer }

// A signing key.
type key struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

func (k *key) ID() string                                  { return k.id }
func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k *key) Key() any                                    { return k.private }

// The same key as in the key set.
type publicKey struct{ *key }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return k.private.Public() }

func newKey(number int, algorithm string) (*key, error) {
	curves := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}
	made := &key{id: fmt.Sprintf("key-%d", number), algorithm: jose.SignatureAlgorithm(algorithm)}
	var err error
	if curve, ok := curves[algorithm]; ok {
		made.private, err = ecdsa.GenerateKey(curve, rand.Reader)
	} else if algorithm == "EdDSA" {
		_, made.private, err = ed25519.GenerateKey(rand.Reader)
	} else {
		made.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	return made, err
}

// The storage of the example, with another client and other keys.
type store struct {
	*storage.Storage
	client *client
	lock   sync.Mutex
	key    *key
}

func (s *store) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.client.ID {
		return nil, errors.New("client not found")
	}
	return s.client, nil
}

func (s *store) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != s.client.ID || secret != s.client.Secret {
		return errors.New("invalid secret")
	}
	return nil
}

// The client asks for a token of its own.
func (s *store) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	return s.client, s.AuthorizeClientIDSecret(ctx, id, secret)
}

func (s *store) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: id, Audience: []string{id}, Scopes: scopes}, nil
}

// The clients of the tests have one key without a `kid`.
func (s *store) GetKeyByIDAndClientID(_ context.Context, _, id string) (*jose.JSONWebKey, error) {
	if id != s.client.ID || len(s.client.Keys.Keys) == 0 {
		return nil, errors.New("key not found")
	}
	return &s.client.Keys.Keys[0], nil
}

func (s *store) current() *key {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.key
}

func (s *store) SigningKey(context.Context) (op.SigningKey, error) { return s.current(), nil }

func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{s.current().algorithm}, nil
}

func (s *store) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{publicKey{s.current()}}, nil
}

type users struct{ user storage.User }

func (u users) GetUserByID(id string) *storage.User {
	if id == u.user.ID {
		return &u.user
	}
	return nil
}

func (u users) GetUserByUsername(name string) *storage.User {
	if name == u.user.Username {
		return &u.user
	}
	return nil
}

func (u users) ExampleClientID() string { return storage.ServiceUserID }

func run() error {
	input := bufio.NewReader(os.Stdin)
	line, err := input.ReadBytes('\n')
	if err != nil {
		return err
	}
	var given settings
	if err := json.Unmarshal(line, &given); err != nil {
		return err
	}
	certificate, err := tls.X509KeyPair([]byte(given.TLS.Certificate), []byte(given.TLS.Key))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer := fmt.Sprintf("https://localhost:%d", listener.Addr().(*net.TCPAddr).Port)

	user := storage.User{
		ID: "user-1", Username: "user-1", Password: "the password of user-1",
		FirstName: "Jane", LastName: "Doe", Email: "jane@example.com", EmailVerified: true,
		// Only the tokens of administrators are exchanged.
		IsAdmin: true,
	}
	first, err := newKey(0, given.Client.Algorithm)
	if err != nil {
		return err
	}
	kept := &store{Storage: storage.NewStorage(users{user}), client: &given.Client, key: first}
	server := &http.Server{
		Handler:   exampleop.SetupServer(issuer, kept, nil, false),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	go func() { log.Fatal(server.ServeTLS(listener, "", "")) }()
	fmt.Printf("{\"issuer\":%q}\n", issuer)

	for number := 1; ; number++ {
		if _, err := input.ReadBytes('\n'); err != nil {
			return nil
		}
		next, err := newKey(number, given.Client.Algorithm)
		if err != nil {
			return err
		}
		kept.lock.Lock()
		kept.key = next
		kept.lock.Unlock()
		fmt.Printf("{\"key\":%q}\n", next.id)
	}
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
