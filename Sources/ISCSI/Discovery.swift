/// SendTargets (RFC 7143 appendix C): what an initiator asks in a discovery session, and the answer.
public enum SendTargets {
    /// Which targets are asked for.
    public enum Request: Hashable, Sendable {
        case all
        /// The session's own target; only in a normal session.
        case sessionTarget
        case named(String)

        /// As the value of the key SendTargets.
        public init?(value: String) {
            switch value {
            case "All": self = .all
            case "": self = .sessionTarget
            default:
                guard (try? ISCSIName(value)) != nil else { return nil }
                self = .named(value)
            }
        }

        public var value: String {
            switch self {
            case .all: "All"
            case .sessionTarget: ""
            case .named(let name): name
            }
        }

        /// The text of the request.
        public var encoded: [UInt8] { TextParameters.encode([TextPair("SendTargets", value)]) }
    }

    /// A long answer's bound, in bytes: some tens of thousands of targets.
    public static let answerByteCount = 4 << 20

    /// The targets of a whole answer, in its order. An address that can't be read, and an address before
    /// the first name, are errors; so is any other key, except that of an answer to another (`Reject`…).
    public static func targets(parsing bytes: [UInt8]) throws(Failure) -> [DiscoveredTarget] {
        guard bytes.count <= answerByteCount else {
            throw .text(.tooLong(byteCount: bytes.count, limit: answerByteCount))
        }
        var reader = TextReader(bytes)
        var targets: [DiscoveredTarget] = []
        while true {
            let next: TextPair?
            do throws(TextError) { next = try reader.next() } catch { throw .text(error) }
            guard let pair = next else { return targets }
            switch pair.key {
            case "TargetName":
                guard !pair.value.isEmpty, pair.value.utf8.count <= ISCSIName.maxByteCount else {
                    throw .key(NegotiationError(key: pair.key, value: pair.value, expected: "an iSCSI name"))
                }
                targets.append(DiscoveredTarget(name: pair.value))
            case "TargetAddress":
                guard let address = TargetAddress(parsing: pair.value), !targets.isEmpty else {
                    throw .key(NegotiationError(key: pair.key, value: pair.value, expected: "host[:port][,tag] after a TargetName"))
                }
                targets[targets.count - 1].addresses.append(address)
            case "SendTargets" where OperationalNegotiation.isConstant(pair.value):
                throw .refused(pair.value)
            default:
                // TargetAlias and vendors' keys say nothing about where a target is.
                continue
            }
        }
    }

    /// The text of an answer.
    public static func encode(_ targets: [DiscoveredTarget]) -> [UInt8] {
        TextParameters.encode(
            targets.flatMap { target in
                [TextPair("TargetName", target.name)] + target.addresses.map { TextPair("TargetAddress", $0.description) }
            })
    }

    public enum Failure: Error, Hashable, Sendable {
        case text(TextError)
        case key(NegotiationError)
        /// The target answered SendTargets with Reject or NotUnderstood.
        case refused(String)
    }
}
