import Foundation
import ISCSITarget
import SCSI
import Testing

@Suite struct FaultTextTests {
    @Test(arguments: [
        "busy:portal=2,from=100,count=5", "silence:portal=1,for=3s", "sense=03/11/00:lba=0-2047,chance=0.100000",
        "reset:portal=0", "reset:connection=3", "slow-drip=1024", "refuse:portal=1,for=1m", "hang-in-login", "task-set-full:lun=3,op=write",
        "alua-transition=standby:group=2,for=250ms", "digest-corruption=header:from=7", "reject=05:count=1",
        "async-logout=3s:portal=0", "async-logout=2s:connection=1", "async-drop=50ms:connection=2", "restart=2s:node=iqn.2026-11.org.example:b", "identity:lun=0",
        "identity=naa.6001405abcdef01234567890abcdef01", "capacity=1000:lun=0,after=2h", "late-execution=5s:op=write",
        "late-execution:chance=1.000000", "delay=10s", "mute", "deaf",
    ])
    func textAndFaultAreOne(text: String) throws {
        let fault = try FaultCommand(parsing: text)
        #expect(fault.description == text)
        let coded = try JSONDecoder().decode([FaultCommand].self, from: JSONEncoder().encode([fault]))
        #expect(coded == [fault])
    }

    @Test(arguments: [
        ("", FaultParseError.unknownKind("")), ("Busy", .unknownKind("Busy")), ("busy=1", .valueNotAllowed("busy")),
        ("sense", .missingValue("sense")), ("delay", .missingValue("delay")), ("busy:", .unknownOption("")),
        ("busy:portal", .missingValue("portal")), ("busy:colour=1", .unknownOption("colour")),
        ("busy:portal=1,portal=2", .duplicateOption("portal")), ("reset:for=1s", .optionNotAllowed("for", kind: "reset")),
        ("refuse:op=read", .optionNotAllowed("op", kind: "refuse")), ("busy:connection=70000", .badValue(option: "connection", value: "70000", expected: "a number from 0 to 65535")),
    ])
    func aWrongTextSaysWhatIsWrong(text: String, error: FaultParseError) {
        #expect(throws: error) { try FaultCommand(parsing: text) }
        #expect(!error.description.isEmpty)
    }

    @Test(arguments: [
        "sense=3/11", "sense=10/00/00", "sense=3/111/00", "busy:portal=-1", "busy:portal=x", "busy:from=0", "busy:count=0",
        "busy:lba=5-4", "busy:lba=1-2-3", "busy:lba=", "busy:chance=1.1", "busy:chance=0.1234567", "busy:chance=.5",
        "busy:chance=2", "busy:for=3", "busy:for=s", "busy:for=99999999999999999999s", "busy:for=9999999999h",
        "slow-drip=0", "reject=xyz", "digest-corruption=both", "alua-transition=gone", "identity=naa.5", "capacity=0",
        "busy:op=flush", "busy:lun=16384", "busy:group=65536",
    ])
    func aWrongValueIsRefused(text: String) {
        #expect {
            try FaultCommand(parsing: text)
        } throws: { error in
            guard case .badValue? = error as? FaultParseError else { return false }
            return true
        }
    }

    @Test func aChanceIsKeptInMillionths() throws {
        #expect(try FaultCommand(parsing: "busy:chance=0.1").trigger.chanceMillionths == 100_000)
        #expect(try FaultCommand(parsing: "busy:chance=1").trigger.chanceMillionths == 1_000_000)
        #expect(try FaultCommand(parsing: "busy:chance=0").trigger.chanceMillionths == 0)
        #expect(try FaultCommand(parsing: "busy").kind == .status(.busy))
    }
}
