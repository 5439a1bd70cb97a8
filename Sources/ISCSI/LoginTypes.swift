/// SessionType (RFC 7143 section 13.21).
@frozen
public enum SessionType: Hashable, Sendable {
    case normal
    /// Only for SendTargets; carries no SCSI commands.
    case discovery
}

/// What one side asks for, or can do, in the operational keys (RFC 7143 section 13). Lengths in bytes,
/// times in seconds.
public struct OperationalSettings: Hashable, Sendable {
    /// In order of preference; must not be empty.
    public var headerDigest: [DigestKind] = [.none]
    public var dataDigest: [DigestKind] = [.none]
    /// 1…65535
    public var maxConnections = 1
    /// False: unsolicited data is wanted; the answer is true where either side says true.
    public var initialR2T = false
    public var immediateData = true
    /// What this side takes in one data segment: 512…16,777,215.
    public var maxRecvDataSegmentByteCount = 262_144
    /// 512…16,777,215
    public var maxBurstByteCount = 1_048_576
    /// 512…16,777,215, at most `maxBurstByteCount`.
    public var firstBurstByteCount = 262_144
    /// 0…3600
    public var defaultTime2Wait = 2
    /// 0…3600
    public var defaultTime2Retain = 20
    /// 1…65535
    public var maxOutstandingR2T = 8
    public var dataPDUInOrder = true
    public var dataSequenceInOrder = true
    /// 0…2
    public var errorRecoveryLevel = 0

    public init() {}
}

/// What both sides agreed on. Lengths in bytes, times in seconds.
public struct NegotiatedParameters: Hashable, Sendable {
    public var headerDigest = DigestKind.none
    public var dataDigest = DigestKind.none
    public var maxConnections = 1
    public var initialR2T = true
    public var immediateData = true
    /// What we declared: the longest data segment that the peer may send.
    public var maxRecvDataSegmentByteCount = 8192
    /// What the peer declared: the longest data segment that we may send.
    public var maxSendDataSegmentByteCount = 8192
    public var maxBurstByteCount = 262_144
    public var firstBurstByteCount = 65_536
    public var defaultTime2Wait = 2
    public var defaultTime2Retain = 20
    public var maxOutstandingR2T = 1
    public var dataPDUInOrder = true
    public var dataSequenceInOrder = true
    public var errorRecoveryLevel = 0
    /// iSCSIProtocolLevel (RFC 7144): 1 is RFC 7143, 2 adds RFC 7144.
    public var protocolLevel = 1

    /// The defaults of RFC 7143 section 13, in force until something is agreed.
    public init() {}
}

/// Where a connection enters its session. CmdSN is the session's, StatSN the connection's.
public struct LoginSettings: Sendable {
    public var initiatorName: String
    public var initiatorAlias: String?
    /// Must be there in a normal session.
    public var targetName: String?
    public var sessionType = SessionType.normal
    public var isid: ISID
    /// 0 asks for a new session (or, with a live session's ISID, reinstates it); otherwise the session
    /// that this connection joins.
    public var tsih: UInt16 = 0
    public var connectionID: UInt16 = 0
    public var initiatorTaskTag: UInt32 = 0
    /// The session's next CmdSN: any number in a leading login.
    public var cmdSN: UInt32 = 1
    public var chap: CHAPCredentials?
    /// Begins with the operational stage where there is no CHAP, as RFC 7143 section 6.3 allows; see ``InitiatorLogin/start()``
    /// for why it is not done.
    package var skipsSecurityStage = false
    public var operational = OperationalSettings()
    /// Where `tsih` is not 0: what the session's leading login agreed on. Only digests and
    /// MaxRecvDataSegmentLength are negotiated anew (RFC 7143 section 13, "LO").
    public var sessionParameters = NegotiatedParameters()

    public init(initiatorName: String, targetName: String?, isid: ISID) {
        self.initiatorName = initiatorName
        self.targetName = targetName
        self.isid = isid
    }
}

/// What a successful login leaves behind.
public struct LoginResult: Hashable, Sendable {
    public var parameters: NegotiatedParameters
    public var tsih: UInt16
    /// The target portal group that was reached; a discovery session need not have one.
    public var portalGroupTag: UInt16?
    public var targetAlias: String?
    /// The algorithm by which we proved ourselves, nil without CHAP.
    public var authenticatedWith: CHAPAlgorithm?
    /// The CmdSN of the next non-immediate command.
    public var cmdSN: UInt32
    /// The StatSN to be expected next.
    public var expStatSN: UInt32
    public var expCmdSN: UInt32
    public var maxCmdSN: UInt32
}

/// What the initiator does next in a login.
public enum LoginAction: Sendable {
    /// Send this and wait for the Login Response.
    case send(PDU)
    /// Full-feature phase: digests and lengths apply from the next PDU on, both ways.
    case finished(LoginResult)
    /// Close the connection and log in there.
    case redirected(LoginRedirection)
    /// Close the connection.
    case failed(LoginFailure)
}

/// Status class 1 of a Login Response. Not to be followed without a bound: two targets may point at each other.
public struct LoginRedirection: Hashable, Sendable {
    public var address: TargetAddress
    public var isPermanent: Bool

    public init(address: TargetAddress, isPermanent: Bool) {
        self.address = address
        self.isPermanent = isPermanent
    }
}
