//! What a factory around another one passes on to it.

/// Passes on the hooks of a factory around `$factory`, in its implementation of `Factory`. Those that
/// can ask for connections go through its method `act`, which wraps what they are served by.
macro_rules! pass_on_hooks {
    ($self:ident, $factory:expr) => {
        fn handle_error(&mut $self, ended: &crate::session::Ended<'_>) {
            $factory.handle_error(ended);
        }

        fn handle_refusal(
            &mut $self,
            peer: &crate::address::Peer,
            why: crate::session::Refusal,
        ) {
            $factory.handle_refusal(peer, why);
        }

        fn started(&mut $self, actions: &mut crate::session::Actions<'_, Self::Protocol>) {
            $self.act(actions, F::started);
        }

        fn poll_timeout(&$self) -> Option<std::time::Instant> {
            $factory.poll_timeout()
        }

        fn handle_timeout(&mut $self, actions: &mut crate::session::Actions<'_, Self::Protocol>) {
            $self.act(actions, F::handle_timeout);
        }

        fn needs_loop(&$self) -> bool {
            $factory.needs_loop()
        }

        fn trusted_proxies(&$self, listener: usize) -> Option<crate::address::NetworkList> {
            $factory.trusted_proxies(listener)
        }

        fn needs_one_process(&$self) -> bool {
            $factory.needs_one_process()
        }

        fn woken(&mut $self, actions: &mut crate::session::Actions<'_, Self::Protocol>) {
            $self.act(actions, F::woken);
        }

        fn service_actions(&mut $self, actions: &mut crate::session::Actions<'_, Self::Protocol>) {
            $self.act(actions, F::service_actions);
        }
    };
}

pub(super) use pass_on_hooks;
