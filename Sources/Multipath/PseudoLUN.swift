public import SCSI
public import Timebase

/// One disk over several paths: admits requests, asks the DSM for a path, judges errors, re-drives.
///
/// Pure: every call carries its moment, every wish comes out of ``nextAction()``. Owned by one thread. The
/// engine drains ``nextAction()`` after each call (or batch of calls) and calls ``timerFired(at:)`` when
/// ``nextDeadline`` has come. Admission, issue and completion neither allocate nor lock.
///
/// Promises, beside those of `docs/failover.md`: each admitted request gets exactly one `.finish`; no two overlapping
/// writes are in flight at once, the later admitted waits; requests wait in their original order.
public final class PseudoLUN {
    /// So many retries that cost nothing may follow one another before they count after all.
    public static let freeRetryLimit = 32

    /// The name in the policy file.
    public let name: String
    /// What the user decided; changed by ``update(_:at:)`` and ``setPolicy(_:at:)``.
    public internal(set) var settings: LUNSettings
    /// What the LUN is; nil until a path has shown it. ``pin(_:)`` says beforehand what it must be.
    public internal(set) var device: DeviceDescription?
    /// The device-specific module that decides for it.
    @exclusivity(unchecked) public internal(set) var dsm: any DeviceSpecificModule
    let registry: DSMRegistry?
    var pinnedIdentity: LogicalUnitIdentity?
    /// Who defined ``device``; -1 for nobody.
    var definingPath: Int32 = -1

    // MARK: Requests
    //
    // The checks of exclusive access cost a third of a request here. They can find nothing: one thread
    // owns the LUN, and nothing that is called from within knows it.

    let requestCapacity: Int
    let slots: Slots
    let scratch: UnsafeMutablePointer<Int32>
    @exclusivity(unchecked) var freeSlots: Int32 = -1
    /// Slots from here on were never used and hold nothing: a LUN that has little to do takes little memory.
    @exclusivity(unchecked) var untouchedSlots: Int32 = 0
    @exclusivity(unchecked) var ready = SlotQueue()
    @exclusivity(unchecked) var delayed: DelayHeap
    /// Admission order, for `command-timeout`.
    @exclusivity(unchecked) var oldest: Int32 = -1
    @exclusivity(unchecked) var youngest: Int32 = -1
    @exclusivity(unchecked) var nextSequence: UInt64 = 1
    @exclusivity(unchecked) var liveCount = 0
    @exclusivity(unchecked) var firstWriter: Int32 = -1
    @exclusivity(unchecked) var lastWriter: Int32 = -1
    /// Writes in state `.blocked`.
    @exclusivity(unchecked) var blockedCount = 0
    /// The ranges of all admitted writes and of all old copies.
    @exclusivity(unchecked) var ranges = RangeIndex()
    @exclusivity(unchecked) var staleWrites = StaleWriteGuard()
    @exclusivity(unchecked) var commandTimeout: UInt64

    // MARK: Paths

    @exclusivity(unchecked) var paths: [PathRecord] = []
    @exclusivity(unchecked) var rows: UnsafeMutablePointer<PathCandidate>
    @exclusivity(unchecked) var hot: UnsafeMutablePointer<PathCounters>
    var rowCapacity = 16
    @exclusivity(unchecked) var bestGrade = PathGrade.unusable
    var areCandidatesStale = false
    /// For fail-over-only: who carries all, to tell a fail-back when it happens.
    var lastCarrier: Int32 = -1
    /// Since when no path is usable and none can be hoped for.
    @exclusivity(unchecked) var noPathSince: Instant?
    @exclusivity(unchecked) var isExpired = false
    var hadPath = false
    @exclusivity(unchecked) var isClosed = false
    @exclusivity(unchecked) var isLUNFailed = false
    /// While a LOGICAL UNIT RESET is out nothing is issued: it might be hit.
    @exclusivity(unchecked) var resetVia: Int32 = -1
    var resetFor: Int32 = -1
    var resetSince = Instant.zero
    var wasResetRefused = false

    // MARK: Asymmetric access

    /// The SET TARGET PORT GROUPS that is out.
    var transition: ExplicitTransition?
    /// When the module would like to ask for one.
    var transitionAt = Instant.distantFuture

    // MARK: Output

    @exclusivity(unchecked) var actions: Ring<PseudoLUNAction>
    @exclusivity(unchecked) var decisions = DecisionRing()
    @exclusivity(unchecked) var incidents = IncidentRing()
    @exclusivity(unchecked) var controlDeadline = Instant.distantFuture
    /// How often traffic left a path because it failed.
    public internal(set) var failOverCount = 0
    /// Requests that were sent again because their path was lost.
    public internal(set) var redrivenCount: UInt64 = 0
    /// Set by simulations only.
    package var plantedMistake: PlantedMistake?

    /// A LUN without paths. `registry` is asked for a module when the first path shows what the LUN is; `requestCapacity`
    /// requests, at least 1, are admitted at a time, and more are turned away by `admit`.
    public convenience init(
        name: String, settings: LUNSettings, registry: DSMRegistry = DSMRegistry(), requestCapacity: Int
    ) {
        self.init(
            name: name, settings: settings, dsm: DefaultDSM(policy: settings.policy), registry: registry,
            requestCapacity: requestCapacity)
    }

    /// A LUN whose module is known already.
    public convenience init(
        name: String, settings: LUNSettings, dsm: any DeviceSpecificModule, requestCapacity: Int
    ) {
        self.init(
            name: name, settings: settings, dsm: dsm, registry: nil, requestCapacity: requestCapacity)
    }

    private init(
        name: String, settings: LUNSettings, dsm: any DeviceSpecificModule, registry: DSMRegistry?,
        requestCapacity: Int
    ) {
        precondition(requestCapacity > 0 && requestCapacity < Int(Int32.max))
        self.name = name
        self.settings = settings
        self.dsm = dsm
        self.registry = registry
        self.requestCapacity = requestCapacity
        slots = .allocate(capacity: requestCapacity)
        scratch = .allocate(capacity: requestCapacity)
        delayed = DelayHeap(capacity: requestCapacity)
        rows = .allocate(capacity: rowCapacity)
        hot = .allocate(capacity: rowCapacity)
        actions = Ring(capacity: 4 * requestCapacity)
        commandTimeout = UInt64(max(settings.timers.commandTimeout.wholeNanoseconds, 0))
    }

    deinit {
        slots.deallocate()
        scratch.deallocate()
        delayed.deallocate()
        rows.deallocate()
        hot.deallocate()
        actions.deallocate()
        decisions.deallocate()
        incidents.deallocate()
    }

    var table: CandidateTable { CandidateTable(rows: rows, count: paths.count) }

    /// Says which unit this must be. To be called before a path is connected.
    public func pin(_ identity: LogicalUnitIdentity) { pinnedIdentity = identity }

    /// The next thing to do; nil when there is nothing more for now.
    public func nextAction() -> PseudoLUNAction? {
        guard let action = actions.pop() else { return nil }
        if case .finish(let request, _) = action { release(Int32(truncatingIfNeeded: request.slot)) }
        return action
    }

    /// When ``timerFired(at:)`` wants to be called; `Instant.distantFuture` for never.
    public var nextDeadline: Instant {
        var deadline = controlDeadline.nanoseconds
        if delayed.first >= 0 { deadline = min(deadline, slots[Int(delayed.first)].dueAt) }
        if oldest >= 0, commandTimeout > 0, noPathSince == nil {
            let (due, overflow) = slots[Int(oldest)].startedAt.addingReportingOverflow(commandTimeout)
            if !overflow { deadline = min(deadline, due) }
        }
        return Instant(nanoseconds: deadline)
    }

    func post(_ event: MultipathEvent) { actions.push(.event(event)) }
}

/// Counters of one path of one LUN; plain data beside the candidate row.
struct PathCounters {
    var inFlight = SlotQueue()
    var inFlightBlocks: Int = 0
    var issued: UInt64 = 0
    var completed: UInt64 = 0
    var bytesRead: UInt64 = 0
    var bytesWritten: UInt64 = 0
    var errors: UInt64 = 0
    /// When something last came back, in nanoseconds.
    var lastHeard: UInt64 = 0
    /// Good completions since the queue last grew.
    var growth: Int32 = 0
}
