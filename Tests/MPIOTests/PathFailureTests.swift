import ISCSI
import Multipath
import Testing

@testable import MPIO

struct PathFailureTests {
    @Test func everyEndOfAConnectionHasItsReason() {
        #expect(PathFailure(SessionFailure.silent).reason == .silent)
        #expect(PathFailure(SessionFailure.dead).reason == .notAcknowledged)
        #expect(PathFailure(SessionFailure.commandTimeout).reason == .silent)
        #expect(PathFailure(SessionFailure.endOfStream).reason == .connectionClosed)
    }
}
