/// Who knocks: from the first Login Request of a connection.
public struct TargetLoginIdentity: Hashable, Sendable {
    public var initiatorName: String
    public var initiatorAlias: String?
    /// nil only in a discovery session.
    public var targetName: String?
    public var sessionType: SessionType
    public var isid: ISID
    /// 0: a new session; otherwise the connection wants to join (or re-enter) that session.
    public var tsih: UInt16
    public var connectionID: UInt16
    /// CmdSN of the request: in a leading login the session's first.
    public var cmdSN: UInt32
}

/// The caller's answer to ``TargetLoginAction/identify(_:)``.
public enum TargetLoginDecision: Sendable {
    case accept(TargetLoginGrant)
    case redirect(TargetAddress, isPermanent: Bool)
    /// With a status of class 2 or 3.
    case reject(LoginStatus)
}

/// The terms under which a target lets somebody in.
public struct TargetLoginGrant: Sendable {
    public var operational: OperationalSettings
    /// Sent with the first response of a normal session (RFC 7143 section 13.9).
    public var portalGroupTag: UInt16
    public var targetAlias: String?
    public var authentication: TargetAuthentication
    /// Where the connection joins a session: what the session's leading login agreed on.
    public var sessionParameters: NegotiatedParameters?

    public init(
        operational: OperationalSettings = OperationalSettings(), portalGroupTag: UInt16 = 1, targetAlias: String? = nil,
        authentication: TargetAuthentication = .none, sessionParameters: NegotiatedParameters? = nil
    ) {
        self.operational = operational
        self.portalGroupTag = portalGroupTag
        self.targetAlias = targetAlias
        self.authentication = authentication
        self.sessionParameters = sessionParameters
    }
}

public enum TargetAuthentication: Sendable {
    case none
    /// One of `initiators` must prove itself; `own` answers an initiator that wants proof in return.
    case chap(initiators: [CHAPIdentity], own: CHAPIdentity?, algorithms: [CHAPAlgorithm] = CHAPAlgorithm.byStrength)
}

/// The caller's answer to ``TargetLoginAction/establish(_:)``.
public enum TargetLoginAdmission: Sendable {
    case admit(tsih: UInt16, expCmdSN: UInt32, maxCmdSN: UInt32)
    case reject(LoginStatus)
}

/// What the target does next in a login. The two questions are answered by the method of the same name,
/// whenever the caller knows the answer.
public enum TargetLoginAction: Sendable {
    /// Send this and wait for the next Login Request.
    case send(PDU)
    /// Who it is, is known: call `identified(_:)`.
    case identify(TargetLoginIdentity)
    /// All is agreed: call `established(_:)`, which reinstates or joins the session.
    case establish(TargetLoginIdentity, NegotiatedParameters)
    /// Send this; full-feature phase begins behind it, digests and lengths apply from the next PDU on.
    case finished(PDU, TargetLoginResult)
    /// Send this and close the connection.
    case refused(PDU, TargetLoginRefusal)
    /// Close the connection: no answer can be given.
    case failed(LoginFailure)
}

/// Why a target refused; the status is what the initiator is told.
public struct TargetLoginRefusal: Error, Hashable, Sendable {
    public var status: LoginStatus
    /// nil where the caller's own decision was the reason.
    public var failure: LoginFailure?

    public init(status: LoginStatus, failure: LoginFailure?) {
        self.status = status
        self.failure = failure
    }
}

/// What a successful login leaves behind at the target.
public struct TargetLoginResult: Hashable, Sendable {
    public var identity: TargetLoginIdentity
    public var parameters: NegotiatedParameters
    public var tsih: UInt16
    /// CHAP_N of the initiator, nil without CHAP.
    public var authenticatedName: String?
    /// The StatSN of the next response.
    public var statSN: UInt32
}
