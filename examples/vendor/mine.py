from distparity import Device


class Sim(Device):
    kind = "sim"  # torch's device type, and the name for --device

    def load(self) -> None:  # what registers the device with torch
        from distparity_sim import register

        register()

    def backend(self) -> str:  # what init_process_group is given
        return "simccl"
