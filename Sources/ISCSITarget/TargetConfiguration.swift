public import AsyncIO
public import ISCSI
public import SCSI

/// What an ``EmbeddedTarget`` offers: one iSCSI target node, its portals and its logical units.
public struct TargetConfiguration: Sendable {
    /// The iSCSI name of the target node (`iqn.…`, `eui.…` or `naa.…`).
    public var name: String
    public var alias: String
    public var portals: [TargetPortalConfiguration]
    public var logicalUnits: [LogicalUnitConfiguration]
    /// What initiators must prove, and what is proven to them.
    public var authentication: TargetAuthentication
    /// Digests that may be negotiated beside None.
    public var allowsHeaderDigest = true
    public var allowsDataDigest = true
    /// MaxConnections: connections of one session, 1…65,535. All come through portals of one group.
    public var maximumConnectionsPerSession = 1
    /// The highest ErrorRecoveryLevel that is agreed to, 0…2.
    public var errorRecoveryLevel = 0
    /// What becomes of a session that loses one of several connections, at levels 0 and 1.
    public var connectionLoss = ConnectionLossBehaviour.keepSession
    /// DefaultTime2Retain, in whole seconds: so long (and DefaultTime2Wait before) tasks of a lost connection wait for
    /// another one, at level 2.
    public var defaultTime2Retain = 20
    /// DefaultTime2Wait, in whole seconds.
    public var defaultTime2Wait = 2
    /// Sessions that may exist at a time; a login beyond it is refused (0302h, out of resources).
    public var maximumSessions = 1024
    /// Commands that one session may have outstanding: the width of its CmdSN window.
    public var queueDepth = 128
    /// The longest data segment accepted, in bytes.
    public var maximumReceiveDataSegmentByteCount = 262_144
    public var maximumBurstByteCount = 1 << 20
    public var firstBurstByteCount = 262_144
    public var maximumOutstandingR2T = 4
    /// Immediate data and unsolicited data are granted where the initiator wants them.
    public var allowsImmediateData = true
    public var requiresInitialR2T = false
    /// Memory for data of commands under way, over all sessions, in bytes.
    public var bufferByteCount = 256 << 20
    /// Initiators may change access states of port groups (SET TARGET PORT GROUPS).
    public var allowsExplicitTransitions = false
    /// An idle connection is asked by NOP-In after this time, and dropped when it does not answer in as long again; nil: never.
    public var pingInterval: Duration? = .seconds(30)
    /// States of port groups at the start, by their tags; those that are not named are active/optimized.
    public var accessStates: [UInt16: AccessState] = [:]
    /// Further iSCSI nodes: targets with units of their own, or peers behind the same units.
    public var furtherNodes: [TargetNodeConfiguration] = []
    /// Commands may lie for up to 80 µs, where that is measured to cost the initiators nothing, so that several are received and
    /// answered together: it halves what a small write costs. For a target that has its ``AsyncIO/IOPort`` to itself.
    public var gathersCommands = false
    /// Where the chances of faults begin.
    public var faultSeed: UInt64 = 1

    public init(
        name: String, portals: [TargetPortalConfiguration], logicalUnits: [LogicalUnitConfiguration],
        alias: String = "", authentication: TargetAuthentication = .none
    ) {
        self.name = name
        self.alias = alias
        self.portals = portals
        self.logicalUnits = logicalUnits
        self.authentication = authentication
    }
}

/// One address at which a target listens, and the portal group it belongs to.
public struct TargetPortalConfiguration: Hashable, Sendable {
    public var address: SocketAddress
    /// 0…65,535. Connections of one session must use portals of one group.
    public var groupTag: UInt16

    public init(address: SocketAddress, groupTag: UInt16) {
        self.address = address
        self.groupTag = groupTag
    }
}

extension TargetConfiguration {
    /// As the protocol half takes it.
    var serviceSettings: TargetServiceSettings {
        var settings = TargetServiceSettings()
        settings.operational.headerDigest = allowsHeaderDigest ? [.none, .crc32c] : [.none]
        settings.operational.dataDigest = allowsDataDigest ? [.none, .crc32c] : [.none]
        settings.operational.maxConnections = maximumConnectionsPerSession
        settings.operational.errorRecoveryLevel = errorRecoveryLevel
        settings.operational.defaultTime2Wait = defaultTime2Wait
        settings.operational.defaultTime2Retain = defaultTime2Retain
        settings.connectionLoss = connectionLoss
        settings.retainedByteLimit = bufferByteCount / 8
        settings.operational.initialR2T = requiresInitialR2T
        settings.operational.immediateData = allowsImmediateData
        settings.operational.maxRecvDataSegmentByteCount = maximumReceiveDataSegmentByteCount
        settings.operational.maxBurstByteCount = maximumBurstByteCount
        settings.operational.firstBurstByteCount = firstBurstByteCount
        settings.operational.maxOutstandingR2T = maximumOutstandingR2T
        settings.queueDepth = queueDepth
        settings.maximumSessions = maximumSessions
        settings.maximumTransferByteCount = LogicalUnit.maximumTransferByteCount
        settings.pingInterval = pingInterval
        return settings
    }
}

extension TargetAddress {
    /// nil for what is no IP address.
    init?(_ address: SocketAddress, portalGroupTag: UInt16) {
        guard let port = address.port else { return nil }
        self.init(host: address.host, port: port, portalGroupTag: portalGroupTag)
    }
}
