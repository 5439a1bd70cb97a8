// OpenSSL's libssl as Swift sees it, and what of it are macros that Swift cannot import.
#pragma once
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdint.h>

// What servers of pre-shared keys have in common; NULL where this build or configuration of OpenSSL cannot do it.
//
// No certificate, no ticket, no resumption, no early data, no renegotiation. Suites with forward secrecy and AEAD
// only: of TLS 1.2 OpenSSL has one with ECDHE and a pre-shared key; those of 1.3 are the ones with SHA-256, which is
// what a key without a hash of its own stands for (RFC 8446 section 4.2.11). Small groups: what a stranger can make
// us compute is bounded.
static inline SSL_CTX *mpio_tls_server_context(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL) return NULL;
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION
                                     | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1
        && SSL_CTX_set_max_proto_version(context, 0) == 1
        && SSL_CTX_set_cipher_list(context, "ECDHE-PSK-CHACHA20-POLY1305") == 1
        && SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") == 1
        && SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384") == 1
        && SSL_CTX_set_num_tickets(context, 0) == 1
        && SSL_CTX_set_max_early_data(context, 0) == 1)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

// A connection that accepts, with memory on both sides of it: what comes from the peer is written to *input, what goes
// to it is read from *output. NULL where memory is short.
static inline SSL *mpio_tls_accepting(SSL_CTX *context, void *owner, BIO **input, BIO **output) {
    SSL *connection = SSL_new(context);
    *input = BIO_new(BIO_s_mem());
    *output = BIO_new(BIO_s_mem());
    if (connection == NULL || *input == NULL || *output == NULL || SSL_set_app_data(connection, owner) != 1) {
        BIO_free(*input);
        BIO_free(*output);
        SSL_free(connection);
        return NULL;
    }
    SSL_set_bio(connection, *input, *output);
    SSL_set_accept_state(connection);
    return connection;
}

static inline void *mpio_tls_owner(const SSL *connection) { return SSL_get_app_data(connection); }
