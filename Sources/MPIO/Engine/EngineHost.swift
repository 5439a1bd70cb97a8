package import AsyncIO
package import ISCSI
import Timebase

/// What all paths and disks of one reactor share: the port, the cryptography, and the list of disks that
/// have work left from the current step. Confined to the port's thread.
package final class EngineHost {
    package let port: any IOPort
    package let cryptography: any CryptographicServices
    package let crc32c: CRC32CFunction
    /// Which of its manager's reactors it is, from 0.
    let reactorNumber: Int

    /// Who makes the change that is being carried out; nil while nobody does.
    var actor: ChangeActor?

    @exclusivity(unchecked) private var dirtyDisks: [DiskEngine] = []
    @exclusivity(unchecked) private var spare: [DiskEngine] = []
    @exclusivity(unchecked) private var isRunning = false

    /// Requests under way over all disks.
    @exclusivity(unchecked) private var inFlight = 0
    @exclusivity(unchecked) private var coalescing: ReceiveCoalescing
    @exclusivity(unchecked) private var coalescingNanoseconds: UInt64 = 0

    /// - Parameter coalescingLimit: see ``ReceiveCoalescing``; zero turns it off.
    package init(
        port: any IOPort, cryptography: any CryptographicServices, crc32c: @escaping CRC32CFunction,
        coalescingLimit: Duration = .zero, reactorNumber: Int = 0
    ) {
        self.port = port
        self.reactorNumber = reactorNumber
        coalescing = ReceiveCoalescing(limitNanoseconds: UInt64(max(coalescingLimit.wholeNanoseconds, 0)))
        self.cryptography = cryptography
        self.crc32c = crc32c
    }

    /// Notes that a disk has actions to carry out or completions to deliver; it does so in
    /// ``runDirtyDisks()``. A disk calls it once until it ran.
    func markDirty(_ disk: DiskEngine) { dirtyDisks.append(disk) }

    /// A request ended well after `latency` nanoseconds.
    @inline(__always)
    func finished(latency: UInt64) { coalescing.finished(latency: latency) }

    /// A disk has so many requests more, or fewer, under way.
    @inline(__always)
    func changeInFlight(by difference: Int) { inFlight += difference }

    private func adjustCoalescing() {
        let wanted = coalescing.nanoseconds(inFlight: inFlight, arePiecesLarge: port.isReceivingLargePieces)
        guard wanted != coalescingNanoseconds else { return }
        coalescingNanoseconds = wanted
        port.coalesceReceives(nanoseconds: wanted)
    }

    /// Lets every noted disk act, until none is left. One step of input brings many completions, and
    /// acting on them together is what makes one send of all that follows.
    func runDirtyDisks() {
        guard !isRunning, !dirtyDisks.isEmpty else { return }
        isRunning = true
        while !dirtyDisks.isEmpty {
            swap(&dirtyDisks, &spare)
            for disk in spare { disk.settle() }
            spare.removeAll(keepingCapacity: true)
        }
        isRunning = false
        adjustCoalescing()
    }
}
