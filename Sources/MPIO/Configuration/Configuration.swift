public import Multipath
public import SCSI

/// What a policy file says: the targets and their portals, the LUNs, and how each is to be used.
///
/// A value that was read from a file is complete and consistent: names and identities are unique, every path names
/// a portal that exists, options belong to their policy, secrets were read. See `docs/configuration.md` for the file.
public struct Configuration: Sendable {
    /// The initiator's iSCSI name; nil where the file gives none: see ``InitiatorNameSource``.
    public var initiatorName: String?
    /// Whether the loop looks for answers for a moment before it sleeps.
    public var busyPoll = BusyPoll.adaptive
    /// Threads over which the LUNs are spread, 1…64: see ``PathManager/Options/reactors``.
    public var reactors = 1
    /// The targets, in the file's order.
    public var targets: [TargetConfiguration]
    /// The LUNs, in the file's order. Their names are unique.
    public var luns: [LUNConfiguration]
    /// What `defaults` gives; each LUN's ``LUNConfiguration/settings`` already contain it.
    public var defaults: LUNSettings
    /// The file that it was read from, as it was named.
    public var file: String?

    /// What ``reactors`` may be.
    public static var reactorRange: ClosedRange<Int> { 1...64 }

    /// Larger files are refused unread.
    public static var maximumFileByteCount: Int { 1 << 20 }

    /// A configuration made by the program rather than read from a file. Nothing is checked here; opening a LUN is when a
    /// mistake shows.
    public init(
        initiatorName: String? = nil, targets: [TargetConfiguration] = [], luns: [LUNConfiguration] = [],
        defaults: LUNSettings = LUNSettings()
    ) {
        self.initiatorName = initiatorName
        self.targets = targets
        self.luns = luns
        self.defaults = defaults
        file = nil
    }

    /// The LUN with this name.
    public func lun(named name: String) -> LUNConfiguration? {
        luns.first { $0.name == name }
    }
}

/// Whether the loop looks for answers for a moment before it sleeps, which costs processor time and saves the time of being
/// woken.
public enum BusyPoll: Hashable, Sendable, CustomStringConvertible {
    /// While measuring shows that it costs hardly more processor time than sleeping does.
    case adaptive
    /// Never: the thread sleeps at once and is woken by the kernel.
    case never
    /// For so long before every sleep, whatever it costs.
    case always(Duration)

    /// As in the policy file.
    public var description: String {
        switch self {
        case .adaptive: "adaptive"
        case .never: "never"
        case .always(let span): Units.format(span)
        }
    }
}

/// One iSCSI target and how to reach it.
public struct TargetConfiguration: Sendable {
    /// The target's iSCSI name.
    public var name: String
    /// In configured order; at least one.
    public var portals: [PortalConfiguration]
    /// How both sides prove who they are; nil: the target asks for no proof.
    public var chap: CHAPConfiguration?
    /// Header digests in order of preference; at least one.
    public var headerDigests: [DigestName]
    /// Data digests in order of preference; at least one.
    public var dataDigests: [DigestName]
    /// How the connections of each session are chosen (MCS); never `leastBlocks`.
    public var connectionPolicy: PolicySettings
    /// What is asked for in the login.
    public var iscsi: SessionTuning

    /// A target without CHAP and digests, everything else as by default.
    public init(name: String, portals: [PortalConfiguration]) {
        self.name = name
        self.portals = portals
        chap = nil
        headerDigests = [.none]
        dataDigests = [.none]
        connectionPolicy = PolicySettings(.roundRobin)
        iscsi = SessionTuning()
    }
}

/// One session: the connections that it consists of. One connection, unless MCS is asked for.
public struct PortalConfiguration: Hashable, Sendable {
    /// The name of the path that this session is: the first connection's address, with `@` and the source where the
    /// target has several sessions to one address, with `,` and the target's name where several targets share it.
    /// Unique in the configuration.
    public var name: String
    /// In configured order, at least one; the first one leads the login.
    public var connections: [ConnectionConfiguration]

    /// A session of these connections, at least one.
    public init(name: String, connections: [ConnectionConfiguration]) {
        precondition(!connections.isEmpty, "a session has a connection")
        self.name = name
        self.connections = connections
    }

    /// Where the session's leading connection goes.
    public var address: PortalAddress { connections[0].address }
    /// Where the leading connection leaves from; nil: as the routing table says.
    public var source: SourceAddress? { connections[0].source }
}

/// One TCP connection of a session.
public struct ConnectionConfiguration: Hashable, Sendable {
    /// Where it goes.
    public var address: PortalAddress
    /// Nil: as the routing table says.
    public var source: SourceAddress?
    /// For connection policies that use them.
    public var role: PathRole
    /// For connection policies that weigh; 1…65535.
    public var weight: UInt16

    /// A connection to `address`.
    public init(address: PortalAddress, source: SourceAddress? = nil, role: PathRole = .primary, weight: UInt16 = 1) {
        self.address = address
        self.source = source
        self.role = role
        self.weight = weight
    }
}

/// The digests of RFC 7143 section 13.1.
public enum DigestName: String, Hashable, Sendable, CaseIterable {
    /// No digest.
    case none
    /// CRC32C (RFC 7143 section 13.1).
    case crc32c
}

/// The algorithms of RFC 7143 section 9.2 and of the IANA registry of CHAP algorithms.
public enum CHAPAlgorithmName: String, Hashable, Sendable, CaseIterable {
    /// SHA3-256, number 8 of the registry.
    case sha3_256 = "sha3-256"
    /// SHA-256, number 7.
    case sha256
    /// SHA-1, number 6.
    case sha1
    /// MD5, number 5: the one that RFC 7143 obliges every implementation to have.
    case md5

    /// What is offered where the file says nothing. Targets take the first one that they know. SHA-256 comes last
    /// because tgt up to 1.0.85 means SHA-1 by its number, 7, and refuses every login that takes it.
    public static let defaultOrder: [CHAPAlgorithmName] = [.sha3_256, .sha1, .md5, .sha256]
}

/// How the two sides prove themselves (RFC 7143 section 9.2.1).
public struct CHAPConfiguration: Sendable {
    /// The name by which this side logs in (CHAP_N).
    public var user: String
    /// The secret that proves it.
    public var secret: Secret
    /// Set where the target has to prove itself as well.
    public var mutual: Mutual?
    /// Offered in this order.
    public var algorithms: [CHAPAlgorithmName]

    /// By what the target proves itself.
    public struct Mutual: Sendable {
        /// The name that the target gives.
        public var user: String
        /// Its secret; it has to differ from the initiator's.
        public var secret: Secret

        /// The target's user and secret.
        public init(user: String, secret: Secret) {
            self.user = user
            self.secret = secret
        }
    }

    /// A user and a secret; with `mutual` the target has to prove itself too.
    public init(
        user: String, secret: Secret, mutual: Mutual? = nil,
        algorithms: [CHAPAlgorithmName] = CHAPAlgorithmName.defaultOrder
    ) {
        self.user = user
        self.secret = secret
        self.mutual = mutual
        self.algorithms = algorithms
    }
}

/// What is asked of a target in the login (RFC 7143 section 13); it may grant less.
public struct SessionTuning: Hashable, Sendable {
    /// ImmediateData: a write's first bytes may come with its command.
    public var immediateData = true
    /// InitialR2T: unsolicited data waits for an R2T.
    public var initialR2T = false
    /// Bytes, as the three below.
    public var maxReceiveDataSegment = 262_144
    /// MaxBurstLength.
    public var maxBurst = 1 << 20
    /// FirstBurstLength.
    public var firstBurst = 262_144
    /// MaxOutstandingR2T, for each command.
    public var maxOutstandingR2T = 8
    /// 0…2; over 0 only where several connections are wanted to outlive one of them.
    public var errorRecoveryLevel = 0
    /// Commands outstanding at once in one session.
    public var queueDepth = 1024

    /// The defaults of `docs/configuration.md`.
    public init() {}
}

/// One disk, as the program will see it.
public struct LUNConfiguration: Sendable {
    /// The name by which ``PathManager/open(_:)`` takes it.
    public var name: String
    /// What makes a unit this LUN.
    public var identification: LUNIdentification
    /// Reactors over which its blocks are spread, 1 to those that there are (``Configuration/reactors``); one lane on each:
    /// see ``MultipathDisk/laneCount``.
    public var reactors = 1
    /// Policy, timers and the rest, the file's defaults included.
    public var settings: LUNSettings
    /// In configured order. Empty: every path that leads to the LUN, equal and primary.
    public var paths: [PathConfiguration]

    /// A LUN of this name. Without `paths` it has every path that leads to it.
    public init(
        name: String, identification: LUNIdentification, settings: LUNSettings = LUNSettings(),
        paths: [PathConfiguration] = []
    ) {
        self.name = name
        self.identification = identification
        self.settings = settings
        self.paths = paths
    }
}

/// How the LUN is known.
public enum LUNIdentification: Hashable, Sendable {
    /// By what its VPD page 83h says.
    case identity(LogicalUnitIdentity)
    /// By where it is; its identity is then what is found there.
    case location(target: String, lun: LogicalUnitNumber)
    /// By its paths alone, each of which says where it leads; they must agree.
    case byPaths
}

/// One path that the file lists for a LUN.
public struct PathConfiguration: Hashable, Sendable {
    /// Where it leads.
    public var transport: PathTransport
    /// Name, role, weight and place in the order.
    public var settings: PathSettings

    /// A path with its transport and settings.
    public init(transport: PathTransport, settings: PathSettings) {
        self.transport = transport
        self.settings = settings
    }
}

/// What carries a path's requests.
public enum PathTransport: Hashable, Sendable {
    /// A session of ``Configuration/targets``, by the target's and the portal's index. `lun` is nil where the LUN
    /// is to be found there by its identity.
    case portal(target: Int, portal: Int, lun: LogicalUnitNumber?)
    /// A kernel block device, or a file; an absolute path.
    case device(path: String)
}
