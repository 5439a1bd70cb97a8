package import AsyncIO
package import NBD
package import TLS

/// Whether clients may, or have to, use TLS, and by which keys.
package enum NBDSecurity: Sendable {
    case none
    case allowed(TLSServerContext)
    case required(TLSServerContext)

    package var transport: TransportSecurity {
        switch self {
        case .none: .none
        case .allowed: .allowed
        case .required: .required
        }
    }

    var context: TLSServerContext? {
        switch self {
        case .none: nil
        case .allowed(let context), .required(let context): context
        }
    }
}

/// What an NBD server's administrator may want to know.
package enum NBDNotice: Sendable, CustomStringConvertible {
    /// - Parameter untoldCount: more of them, since the one that was told last.
    case tlsFailed(TLSFailure, peer: SocketAddress, untoldCount: Int)

    package var description: String {
        switch self {
        case .tlsFailed(let failure, let peer, let count):
            "TLS with \(Self.words(peer)) failed: \(failure)" + (count > 0 ? " (and \(count) more)" : "")
        }
    }

    private static func words(_ peer: SocketAddress) -> String {
        if case .unix = peer { "a client of this machine" } else { "\(peer)" }
    }
}
