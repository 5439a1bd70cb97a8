public import SCSI
public import Timebase

/// What kind of transport a path uses.
public enum TransportKind: String, Hashable, Sendable, CaseIterable {
    /// An iSCSI session.
    case iSCSI = "iscsi"
    /// A block device of the kernel's, or a file.
    case kernelDevice = "device"
}

/// A device-specific module (DSM): all that is special about one kind of array, for one LUN.
///
/// An instance serves one LUN and is called on the thread that owns the LUN. ``DefaultDSM`` answers
/// everything by a ``LoadBalancePolicy`` and an ``ErrorTable``; a vendor's module is best a subclass of it, or of
/// ``ALUADSM`` for an array with asymmetric access, that overrides only what differs.
public protocol DeviceSpecificModule: AnyObject, SendableMetatype {
    /// Whether this kind of module wants the LUN. The first registered module that does gets it.
    static func claims(_ device: DeviceDescription, transport: TransportKind) -> Bool

    /// A module for one LUN, which is to use this policy.
    init(policy: PolicySettings)

    /// The name that the inspector shows.
    var name: String { get }

    /// Why `found` is not the unit that `known` describes, or must not be used as it; nil where it is.
    func mismatch(known: DeviceDescription, found: DeviceDescription) -> DeviceMismatch?

    // MARK: Choosing a path

    /// The LUN's policy and its options, as last set.
    var policy: PolicySettings { get }
    /// Changes the policy from the next selection on.
    func setPolicy(_ settings: PolicySettings)
    /// The rows of the table changed (not their load). Called before the next selection.
    func candidatesChanged(_ table: CandidateTable, at now: Instant)
    /// The path for a request. Must not allocate; see ``LoadBalancePolicy/select(_:from:at:)``.
    func selectPath(for request: PolicyRequest, from table: CandidateTable, at now: Instant) -> Selection
    /// What ``selectPath(for:from:at:)`` would answer, without counting it.
    func explainPath(for request: PolicyRequest, from table: CandidateTable, at now: Instant) -> Selection
    /// When ``candidatesChanged(_:at:)`` should be called although nothing happened.
    var nextDeadline: Instant { get }
    /// Goes back to the preferred path at once.
    func failBack(_ table: CandidateTable, at now: Instant)

    // MARK: Asymmetric access

    /// How good a path is whose port group is in this state. `.unusable` where it must not carry data.
    func grade(of state: AccessState, isPreferred: Bool) -> PathGrade
    /// No path carries data, and requests wait: which port group the array should be asked to make active. Nil:
    /// none, or not before ``nextTransition``. See ``ExplicitTransitions/wanted(_:since:isImplicit:at:)``.
    func wantedTransition(_ groups: [GroupAccess], since: Instant, isImplicit: Bool, at now: Instant)
        -> ExplicitTransition?
    /// When to ask for a transition again although nothing happened.
    var nextTransition: Instant { get }
    /// How the array answered.
    func transitionEnded(_ transition: ExplicitTransition, _ outcome: PathOutcome, at now: Instant)

    // MARK: Judging

    /// What an outcome other than ``PathOutcome/good`` means.
    func disposition(of outcome: PathOutcome, for request: RequestDescriptor, on path: PathIndex)
        -> ErrorDisposition
    /// The command that asks an idle path whether it is well.
    var verificationCommand: CommandDescriptorBlock { get }
    /// What the answer to ``verificationCommand`` says: nil where the path is well.
    func verificationFailure(_ outcome: PathOutcome) -> PathFailure?

    // MARK: What happened

    /// A path was added; it is not usable yet.
    func pathAdded(_ path: PathIndex, at now: Instant)
    /// A path was lost, with the reason.
    func pathLost(_ path: PathIndex, failure: PathFailure, at now: Instant)
    /// A path is usable, for the first time or again; `device` is what it shows.
    func pathRegained(_ path: PathIndex, device: DeviceDescription, at now: Instant)
    /// A path is gone for good; its index is not given out again.
    func pathRemoved(_ path: PathIndex, at now: Instant)
}

extension DeviceSpecificModule {
    /// By the access state alone.
    public func grade(of state: AccessState, isPreferred: Bool) -> PathGrade { PathGrade(state) }
    /// None: the array's states are left as they are.
    public func wantedTransition(
        _ groups: [GroupAccess], since: Instant, isImplicit: Bool, at now: Instant
    ) -> ExplicitTransition? { nil }
    /// Never.
    public var nextTransition: Instant { .distantFuture }
    /// Ignored.
    public func transitionEnded(_ transition: ExplicitTransition, _ outcome: PathOutcome, at now: Instant) {}
}

/// The modules that may claim a LUN, in the order in which they are asked.
public struct DSMRegistry: Sendable {
    private var types: [any DeviceSpecificModule.Type]

    /// ``ALUADSM`` for what has asymmetric access, and ``DefaultDSM``, which claims everything.
    public init() { types = [ALUADSM.self, DefaultDSM.self] }

    /// Puts a module before those that are registered already.
    public mutating func register(_ type: any DeviceSpecificModule.Type) { types.insert(type, at: 0) }

    /// A module of the first type that claims the device; nil where none does.
    public func module(
        for device: DeviceDescription, transport: TransportKind, policy: PolicySettings
    ) -> (any DeviceSpecificModule)? {
        types.first { $0.claims(device, transport: transport) }?.init(policy: policy)
    }
}
