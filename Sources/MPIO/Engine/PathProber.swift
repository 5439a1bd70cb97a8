import Multipath
import SCSI

/// Runs one ``PathProbe`` over a session's control channel. Reports once, in a later step at the earliest
/// where anything had to be sent; a prober that is let go reports nothing.
final class PathProber {
    private var probe: PathProbe
    private let channel: ControlChannel
    private let lun: LogicalUnitNumber
    private var report: ((ProbeResult) -> Void)?

    init(
        _ probe: PathProbe, channel: ControlChannel, lun: LogicalUnitNumber, report: @escaping (ProbeResult) -> Void
    ) {
        self.probe = probe
        self.channel = channel
        self.lun = lun
        self.report = report
    }

    func start() { take(probe.start()) }

    private func take(_ step: PathProbe.Step) {
        switch step {
        case .send(let cdb, let byteCount):
            channel.execute(cdb, lun: lun, byteCount: byteCount) { [weak self] answer in
                guard let self else { return }
                self.take(self.probe.answered(answer.outcome, data: answer.data))
            }
        case .wait(let time):
            channel.after(time) { [weak self] in
                guard let self else { return }
                self.take(self.probe.resumed())
            }
        case .finished(let result):
            let report = report
            self.report = nil
            report?(result)
        }
    }
}
