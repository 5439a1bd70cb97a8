import AsyncIO
import Glibc
package import ISCSI
package import Multipath

// What sockets and sessions report, in the words of `PathFailure`: the reason decides, the detail is for
// whoever reads it.

extension PathFailure {
    init(_ reason: SocketCloseReason) {
        switch reason {
        case .endOfStream: self.init(.connectionClosed)
        case .connectFailed(let error): self.init(Self.reason(errno: error.code), detail: Self.detail(errno: error.code))
        case .failed(let error): self.init(Self.reason(errno: error.code), detail: Self.detail(errno: error.code))
        }
    }

    package init(_ failure: SessionFailure) {
        switch failure {
        case .connectFailed(let code), .transportFailed(let code):
            self.init(Self.reason(errno: code), detail: Self.detail(errno: code))
        case .endOfStream: self.init(.connectionClosed)
        case .closedLocally: self.init(.takenOut)
        case .login(let failure): self.init(failure)
        case .loginTimeout: self.init(.loginTimedOut)
        case .redirected: self.init(.loginRejected, detail: "redirected")
        case .malformed(.headerDigestMismatch(let received, let computed)):
            self.init(.digestError, detail: "\(ProtocolError.headerDigestMismatch(received: received, computed: computed))")
        case .malformed(let error): self.init(.protocolError, detail: "\(error)")
        case .violation(let violation): self.init(.protocolError, detail: "\(violation)")
        case .dataDigestMismatch(let opcode): self.init(.digestError, detail: "data digest of \(opcode)")
        case .rejected(let opcode, let reason): self.init(.protocolError, detail: "\(opcode) rejected: \(reason)")
        case .dead: self.init(.notAcknowledged)
        case .commandTimeout: self.init(.silent, detail: "no answer within command-timeout")
        case .requestUnanswered: self.init(.silent, detail: "a task management request was not answered")
        case .commandNotTaken: self.init(.silent, detail: "the target answers but does not take commands")
        case .windowShut: self.init(.silent, detail: "the target answers but lets in no command")
        case .droppedByTarget: self.init(.targetDroppedSession)
        // By its type: the case of a connection's failure has the same name.
        case .silent: self.init(PathFailureReason.silent)
        case .recoveryRefused(let response): self.init(.other, detail: "task recovery refused: \(response)")
        case .logoutUnanswered: self.init(.silent, detail: "logout not answered")
        case .logoutRefused(let response): self.init(.other, detail: "logout refused: \(response)")
        }
    }

    init(_ failure: LoginFailure) {
        switch failure {
        case .chap: self.init(.authenticationFailed, detail: "\(failure)")
        case .refused(.authenticationFailure), .refused(.authorizationFailure):
            self.init(.authenticationFailed, detail: "\(failure)")
        default: self.init(.loginRejected, detail: "\(failure)")
        }
    }

    private static func reason(errno code: Int32) -> PathFailureReason {
        switch code {
        case ECONNREFUSED: .connectionRefused
        case ECONNRESET, EPIPE, ECONNABORTED: .connectionReset
        case ENETUNREACH, EHOSTUNREACH, ENETDOWN, EADDRNOTAVAIL: .unreachable
        case ETIMEDOUT: .notAcknowledged
        default: .other
        }
    }

    /// Where the reason says it all, the system's words add nothing.
    private static func detail(errno code: Int32) -> String {
        switch code {
        case ECONNREFUSED, ECONNRESET, EPIPE: ""
        default: errorText(code)
        }
    }
}

extension TransportReport {
    init(_ health: TransportHealth) {
        self.init(
            unacknowledgedByteCount: health.unacknowledgedByteCount,
            sinceLastAcknowledgement: health.sinceLastAcknowledgement,
            unansweredRetransmissions: health.unansweredRetransmissions)
    }
}

extension SocketAddress {
    /// Nil where the host is a name.
    init?(_ address: TargetAddress) {
        let host = address.host.contains(":") && !address.host.hasPrefix("[") ? "[\(address.host)]" : address.host
        guard let parsed = try? PortalAddress(parsing: "\(host):\(address.port)") else { return nil }
        self = parsed.socketAddress
    }
}
