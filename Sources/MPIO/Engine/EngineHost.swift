package import AsyncIO
package import ISCSI
import Timebase

/// What all paths and disks of one reactor share: the port, the cryptography, and the list of disks that
/// have work left from the current step. Confined to the port's thread.
package final class EngineHost {
    package let port: any IOPort
    package let cryptography: any CryptographicServices
    package let crc32c: CRC32CFunction

    /// Set by simulations only.
    package var plantedBug: PlantedEngineBug?

    private var dirtyDisks: [DiskEngine] = []
    private var spare: [DiskEngine] = []
    private var isRunning = false

    package init(port: any IOPort, cryptography: any CryptographicServices, crc32c: @escaping CRC32CFunction) {
        self.port = port
        self.cryptography = cryptography
        self.crc32c = crc32c
    }

    /// Notes that a disk has actions to carry out or completions to deliver; it does so in
    /// ``runDirtyDisks()``. A disk calls it once until it ran.
    func markDirty(_ disk: DiskEngine) { dirtyDisks.append(disk) }

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
    }
}
